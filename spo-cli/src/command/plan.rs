//! `spo plan`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use spo_train::forecast::{Forecast, measure, usual_steps};
use spo_train::{Prepared, prepare};

use super::train::Settings;
use crate::error::CliError;
use crate::output::Output;
use crate::view::{self, forecast_text, plan_text, stages_text};

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
    /// Load the model, measure some optimiser steps of each phase, scoring and sampling, and say how long the run takes;
    /// without STEPS 3 of them, on the CPU 20 of a model of up to 8 million parameters
    #[arg(long, value_name = "STEPS", num_args = 0..=1, value_parser = clap::value_parser!(u64).range(1..))]
    measure: Option<Option<u64>>,
    /// List every stage of the run in order: what is trained, sampled, scored and compared, with rows and tokens
    #[arg(long)]
    stages: bool,
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
            let steps = steps.unwrap_or_else(|| usual_steps(&prepared));
            forecast = forecast.with_speed(measure(&prepared, steps, sink.as_mut())?);
        }
        drop(sink);
        if self.json {
            let mut plan = json!(prepared.plan);
            plan["forecast"] = json!(forecast);
            return output.pretty_json(&plan);
        }
        show(&prepared, &forecast, self.stages, output)
    }
}

/// Prints a plan and what it will do, with every stage if that is asked for.
pub(super) fn show(
    prepared: &Prepared,
    forecast: &Forecast,
    stages: bool,
    output: &mut Output,
) -> Result<(), CliError> {
    let list = if stages { stages_text(&forecast.stages) } else { String::new() };
    output.line((plan_text(&prepared.plan) + &list + &forecast_text(forecast)).trim_end())
}
