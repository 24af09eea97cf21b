//! `spo init`

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::Args;
use spo_train::config::init;

use crate::error::CliError;
use crate::output::Output;

/// Write a commented run file
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The file to write; it must not exist
    #[arg(default_value = "run.toml")]
    file: PathBuf,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(&self.file).map_err(|source| match source.kind() {
                ErrorKind::AlreadyExists => CliError::Exists { path: self.file.clone() },
                _ => CliError::io(&self.file, source),
            })?;
        file.write_all(init::template().as_bytes()).map_err(|source| CliError::io(&self.file, source))?;
        output.line(format_args!("wrote {}", self.file.display()))
    }
}
