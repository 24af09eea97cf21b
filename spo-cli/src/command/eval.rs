//! `spo eval`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use spo_data::Dataset;
use spo_eval::{Bootstrap, report, score_dimension};
use spo_model::CausalLm;
use spo_train::TrainError;
use spo_train::evaluate::labelled_set::{Judged, LabelledSet};

use super::score::sum;
use crate::error::CliError;
use crate::output::Output;
use crate::places::{Place, PointArguments};
use crate::scoring::{Opened, ScoreArguments};

/// Compare a model with a reference on preference pairs
///
/// Prints per dimension how often the log-ratio of model and reference prefers the chosen answer, with a 95 % bootstrap
/// interval over prompts, on all pairs and on those where another dimension agrees or conflicts; and the mean margin.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Model directory or GGUF file; or a policy of a run, RUN:POLICY, the best one of a round RUN:ROUND@best
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Adapter directory in PEFT's format
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    point: PointArguments,
    /// The model to compare with: a directory, or a policy of a run, RUN:start
    #[arg(long, value_name = "DIR")]
    reference: PathBuf,
    /// File, directory or pattern with the pairs; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// One JSON object: scores, per dimension and subset
    #[arg(long)]
    json: bool,
    /// An answer that says nothing; pairs with one are also counted apart. May be repeated
    #[arg(long, value_name = "TEXT")]
    boilerplate: Vec<String>,
    /// Bootstrap resamples
    #[arg(long, value_name = "N", default_value_t = 2000)]
    resamples: usize,
    /// Seed of the resampling
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    scoring: ScoreArguments,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let Opened { device, place, tokenizer, data } =
            self.scoring.open(&self.model, self.adapter.as_deref(), &self.point, &self.data)?;
        let dimensions = data.judged_dimensions();
        if dimensions.is_empty() {
            let files: Vec<String> = self.data.iter().map(|file| file.display().to_string()).collect();
            return Err(TrainError::nothing_left(files.join(", "), &data.report).into());
        }
        // One model is in memory at a time.
        let policy = self.logps(&self.scoring.steered_model(&device, &place, &data)?, &data)?;
        let reference = Place::named(&self.reference, None, None)?;
        let reference = self.logps(&self.scoring.model(&device, &reference, &data)?, &data)?;
        let set = LabelledSet::new("held-out", data, dimensions, &self.boilerplate, &tokenizer)?;
        let bootstrap = Bootstrap { resamples: self.resamples, seed: self.seed };
        let name = place.name;
        let score = |dimension: &String| {
            let margin = |row: Judged| {
                let ratio = |answer: usize| policy[row.example][answer] - reference[row.example][answer];
                row.chosen.map_or(0.0, ratio) - row.rejected.map_or(0.0, ratio)
            };
            let margins: Vec<f64> = set.judged(dimension).into_iter().map(margin).collect();
            score_dimension(&name, dimension, &set.pair_scores(dimension, &margins), &bootstrap)
        };
        let scores = set.dimensions.iter().map(score).collect::<Result<Vec<_>, _>>()?;
        if self.json {
            return output.pretty_json(&json!({ "model": self.model, "reference": self.reference, "scores": scores }));
        }
        output.line(report::score_table(&scores, &[], &self.reference.display().to_string()).trim_end())
    }

    /// Sequence log-probs of each answer of each example.
    fn logps(&self, model: &CausalLm, data: &Dataset) -> Result<Vec<Vec<f64>>, CliError> {
        let scored = self.scoring.score(model, &data.examples)?;
        Ok(scored.iter().map(|answers| answers.iter().map(|logps| sum(logps)).collect()).collect())
    }
}
