//! `spo data …`

mod check;
mod conflict;
mod picture;
mod preview;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use spo_data::format::has_splits;
use spo_data::{Dataset, Part, Tokenizer};

use crate::Outcome;
use crate::command::quickstart;
use crate::error::CliError;
use crate::inputs::{LayoutArguments, TextArguments, model_tokenizer, require_rows};
use crate::output::{Output, note};

/// Evaluation at preference data before training
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Check(check::Arguments),
    Preview(preview::Arguments),
    Conflict(conflict::Arguments),
}

impl Command {
    pub fn run(&self, output: &mut Output) -> Result<Outcome, CliError> {
        match self {
            Self::Check(arguments) => arguments.run(output),
            Self::Preview(arguments) => arguments.run(output).map(|()| Outcome::Done),
            Self::Conflict(arguments) => arguments.run(output).map(|()| Outcome::Done),
        }
    }
}

/// Files and how to read them.
#[derive(Debug, Args)]
struct Source {
    /// Files, directories or patterns
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Tokenizer or model directory, or GGUF file; without one the built-in tokenizer of 512 tokens
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    #[command(flatten)]
    text: TextArguments,
    #[command(flatten)]
    layout: LayoutArguments,
}

impl Source {
    fn tokenizer(&self) -> Result<Tokenizer, CliError> {
        match &self.tokenizer {
            Some(directory) => model_tokenizer(directory),
            None => {
                note("no --tokenizer: tokens are those of the built-in tokenizer (512 tokens, no chat template)");
                quickstart::tokenizer()
            }
        }
    }

    fn load(&self, tokenizer: &Tokenizer) -> Result<Dataset, CliError> {
        let data = self.layout.load(&self.files, &self.text.spec(), tokenizer)?;
        require_rows(&data, &self.files)?;
        Ok(data)
    }

    /// Other files of the same layout.
    fn load_other(&self, file: &Path, tokenizer: &Tokenizer) -> Result<Dataset, CliError> {
        self.layout.load(&[file.to_path_buf()], &self.text.spec(), tokenizer)
    }

    /// Rows to train on and rows to test on, if the files are one directory that holds both by name.
    fn load_splits(&self, tokenizer: &Tokenizer) -> Result<Option<(Dataset, Dataset)>, CliError> {
        let [directory] = self.files.as_slice() else { return Ok(None) };
        if !self.layout.reads_whole_directories() || !has_splits(&directory.to_string_lossy())? {
            return Ok(None);
        }
        let part = |part| self.layout.load_part(&self.files, part, &self.text.spec(), tokenizer);
        Ok(Some((part(Part::Train)?, part(Part::Test)?)))
    }
}
