//! Standard output: results, and nothing but results.

use std::fmt::Display;
use std::io::{BufWriter, IsTerminal, Stdout, Write, stdout};

use serde::Serialize;

use crate::error::CliError;

/// Standard output whose failures are errors, as of a full disk.
pub(crate) struct Output {
    writer: BufWriter<Stdout>,
    /// Whether text may be coloured.
    pub colour: bool,
    /// Whether a person looks at it.
    pub terminal: bool,
}

impl Output {
    pub fn stdout() -> Self {
        let terminal = stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { writer: BufWriter::new(stdout()), colour, terminal }
    }

    /// One line of text.
    pub fn line(&mut self, text: impl Display) -> Result<(), CliError> {
        writeln!(self.writer, "{text}").map_err(|source| CliError::Output { source })
    }

    /// A piece of a line, at once.
    pub fn piece(&mut self, text: &str) -> Result<(), CliError> {
        self.writer.write_all(text.as_bytes()).map_err(|source| CliError::Output { source })?;
        self.flush()
    }

    /// One line of JSON.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        self.line(serde_json::to_string(value).expect("results are plain data"))
    }

    /// Indented JSON.
    pub fn pretty_json(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        self.line(serde_json::to_string_pretty(value).expect("results are plain data"))
    }

    /// Hands on what was written so far.
    pub fn flush(&mut self) -> Result<(), CliError> {
        self.writer.flush().map_err(|source| CliError::Output { source })
    }
}

/// A line beside the results: what a person should know.
pub(crate) fn note(text: impl Display) {
    // A closed standard error stream loses the note, not the results.
    let _ = writeln!(std::io::stderr(), "{text}");
}
