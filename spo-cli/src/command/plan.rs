//! `spo plan`

use std::path::PathBuf;

use clap::Args;
use spo_train::prepare;

use super::train::Settings;
use crate::error::CliError;
use crate::output::Output;
use crate::view::{self, plan_text};

/// Show what a run file resolves to, and train nothing
///
/// Opens the model and reads the data, then prints every value with where it came from: the run file, a flag, a
/// default, or other values.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The run file
    #[arg(value_name = "RUN.toml")]
    file: PathBuf,
    #[command(flatten)]
    settings: Settings,
    /// The plan as JSON, as plan.json in the run directory
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let prepared = prepare(&self.settings.spec(&self.file)?, view::progress().as_mut())?;
        if self.json { output.pretty_json(&prepared.plan) } else { output.line(plan_text(&prepared.plan).trim_end()) }
    }
}
