//! `spo data …`

mod check;
mod conflict;
mod goals;
mod label;
mod picture;
mod preview;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use spo_data::has_splits;
use spo_data::{Dataset, Part, TextSpec, Tokenizer};
use spo_model::export::Manifest;

use crate::command::quickstart;
use crate::error::CliError;
use crate::hub;
use crate::inputs::{LayoutArguments, TextArguments, require_rows};
use crate::outcome::Outcome;
use crate::output::{Output, note};

/// Look at preference data before training, or label answers
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Check(check::Arguments),
    Preview(preview::Arguments),
    Conflict(conflict::Arguments),
    Label(label::Arguments),
    Goals(goals::Arguments),
}

impl Command {
    pub fn run(&self, output: &mut Output) -> Result<Outcome, CliError> {
        match self {
            Self::Check(arguments) => arguments.run(output),
            Self::Preview(arguments) => arguments.run(output).map(|()| Outcome::Done),
            Self::Conflict(arguments) => arguments.run(output).map(|()| Outcome::Done),
            Self::Label(arguments) => arguments.run(output).map(|()| Outcome::Done),
            Self::Goals(arguments) => arguments.run(output).map(|()| Outcome::Done),
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
            Some(directory) => Ok(Tokenizer::of_model(&hub::tokenizer(directory)?)?),
            None => {
                note("no --tokenizer: tokens are those of the built-in tokenizer (512 tokens, no chat template)");
                quickstart::tokenizer()
            }
        }
    }

    /// The layout of text: that of the model, where spo wrote it, with what the arguments change.
    fn text(&self) -> Result<TextSpec, CliError> {
        let tokenizer = self.tokenizer.as_deref().map(hub::tokenizer).transpose()?;
        let own = tokenizer.as_deref().map(Manifest::text_of).transpose()?.flatten();
        Ok(self.text.spec(own.as_ref()))
    }

    /// The rows; says which columns nobody read.
    fn load(&self, tokenizer: &Tokenizer) -> Result<Dataset, CliError> {
        let data = self.read(tokenizer)?;
        data.report.unused().for_each(note);
        self.require_rows(&data)?;
        Ok(data)
    }

    fn read(&self, tokenizer: &Tokenizer) -> Result<Dataset, CliError> {
        self.layout.load(&self.files, &self.text()?, tokenizer)
    }

    fn require_rows(&self, data: &Dataset) -> Result<(), CliError> {
        require_rows(data, &self.files)
    }

    /// Other files of the same layout.
    fn load_other(&self, file: &Path, tokenizer: &Tokenizer) -> Result<Dataset, CliError> {
        self.layout.load(&[file.to_path_buf()], &self.text()?, tokenizer)
    }

    /// Rows to train on and rows to test on, if the files are one directory that holds both by name.
    fn load_splits(&self, tokenizer: &Tokenizer) -> Result<Option<(Dataset, Dataset)>, CliError> {
        let [directory] = self.files.as_slice() else { return Ok(None) };
        if !self.layout.reads_whole_directories() || !has_splits(&directory.to_string_lossy())? {
            return Ok(None);
        }
        let text = self.text()?;
        let part = |part| self.layout.load_part(&self.files, part, &text, tokenizer);
        Ok(Some((part(Part::Train)?, part(Part::Test)?)))
    }
}
