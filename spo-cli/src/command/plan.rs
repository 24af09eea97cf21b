//! `spo plan`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use spo_train::forecast::{Forecast, measure};
use spo_train::{Prepared, prepare};

use super::train::Settings;
use crate::error::CliError;
use crate::output::Output;
use crate::view::{self, forecast_text, plan_text};

/// Show what a run file resolves to, and train nothing
///
/// Reads the model's shape and the data, then prints every value with where it came from: the run file, a flag, a
/// default, or other values; then steps, tokens, passes over the data, disk, memory, and what looks wrong.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The run file
    #[arg(value_name = "RUN.toml")]
    file: PathBuf,
    #[command(flatten)]
    settings: Settings,
    /// Load the model, measure some optimiser steps of each phase, scoring and sampling, and say how long the run takes
    #[arg(long, value_name = "STEPS", num_args = 0..=1, default_missing_value = "3", value_parser = clap::value_parser!(u64).range(1..))]
    measure: Option<u64>,
    /// The plan as JSON, as plan.json in the run directory, with what the run will do as `forecast`
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let mut sink = view::progress();
        let prepared = prepare(&self.settings.spec(&self.file)?, sink.as_mut())?;
        let mut forecast = Forecast::of(&prepared)?;
        if let Some(steps) = self.measure {
            forecast = forecast.with_speed(measure(&prepared, steps, sink.as_mut())?);
        }
        drop(sink);
        show(&prepared, &forecast, self.json, output)
    }
}

/// Prints a plan and what it will do.
pub(super) fn show(
    prepared: &Prepared,
    forecast: &Forecast,
    as_json: bool,
    output: &mut Output,
) -> Result<(), CliError> {
    if as_json {
        let mut plan = json!(prepared.plan);
        plan["forecast"] = json!(forecast);
        return output.pretty_json(&plan);
    }
    output.line((plan_text(&prepared.plan) + &forecast_text(forecast)).trim_end())
}
