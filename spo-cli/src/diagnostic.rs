//! Errors as a person reads them: the message, the line of the run file, what to do.

use std::io::{IsTerminal, Write, stderr};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

use crate::error::CliError;

/// Width of error messages on a terminal.
const WIDTH: usize = 100;

struct DisplayedPrompt<'a> {
    error: &'a CliError,
    source: Option<NamedSource<String>>,
    span: Option<(usize, usize)>,
}

impl<'a> DisplayedPrompt<'a> {
    fn new(error: &'a CliError) -> Self {
        let place = error.config().and_then(|error| error.place());
        Self {
            error,
            source: place.map(|place| NamedSource::new(&place.name, place.text.to_string())),
            span: place.map(|place| (place.span.start, place.span.len())),
        }
    }
}

impl std::fmt::Display for DisplayedPrompt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::fmt::Debug for DisplayedPrompt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

// No `source()`: every message already tells its cause.
impl std::error::Error for DisplayedPrompt<'_> {}

impl Diagnostic for DisplayedPrompt<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.error.hint().map(|hint| Box::new(hint) as Box<dyn std::fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span?;
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(Some("here".into()), span))))
    }
}

/// Writes an error to the standard error stream.
pub(crate) fn show(error: &CliError) {
    let text = render(error, stderr().is_terminal());
    // Nothing is left to be told that standard error is closed.
    let _ = stderr().write_all(text.as_bytes());
}

/// In a file or a pipe lines stay whole, so that they can be searched.
fn render(error: &CliError, terminal: bool) -> String {
    let colour = terminal && std::env::var_os("NO_COLOR").is_none();
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler =
        GraphicalReportHandler::new_themed(theme).with_width(WIDTH).with_links(false).with_wrap_lines(terminal);
    let mut text = String::new();
    match handler.render_report(&mut text, &DisplayedPrompt::new(error)) {
        Ok(()) => format!("{}\n", text.trim_end()),
        Err(_) => format!("error: {error}\n"),
    }
}
