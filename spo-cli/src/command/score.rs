//! `spo score`

use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Map, Value, json};
use spo_data::Example;
use spo_score::pairing::by_dimension;
use spo_score::{Item, Scores};

use crate::error::CliError;
use crate::output::Output;
use crate::places::PointArguments;
use crate::scorers::{self, ScorerArguments};
use crate::scoring::{Opened, ScoreArguments};

/// Rows that are scored before their results are written.
const CHUNK: usize = 64;
/// Name that a preference without one gets.
const UNNAMED: &str = "preference";

/// Print the log-probability of each answer under a model
///
/// One line per row, or per row and dimension where the rows name dimensions. JSON keys: id, dimension, chosen_logp,
/// rejected_logp (nats, summed over the answer's tokens), chosen_tokens, rejected_tokens; with --per-token also
/// chosen_token_logps and rejected_token_logps. Rows may be text, messages or token ids (prompt_ids, chosen_ids,
/// rejected_ids). Rows beyond the model's context are an error unless --max-length says how much may stay.
///
/// With --scorer in place of --model each answer gets a scorer's score: one line per row with id and score (a number, an
/// object by dimension, or null where the scorer declines), or scores, a list, where the row has several answers.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("who").required(true).args(["model", "scorer"]))]
pub(crate) struct Arguments {
    /// Model directory or GGUF file; or a policy of a run, RUN:POLICY, the best one of a round RUN:ROUND@best
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Adapter directory in PEFT's format
    #[arg(long, value_name = "DIR", requires = "model")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    point: PointArguments,
    /// File, directory or pattern with the rows; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Also the log-probability of every token
    #[arg(long, requires = "model")]
    per_token: bool,
    /// The mean of each score over all answers in place of the rows
    #[arg(long, requires = "scorer")]
    mean: bool,
    #[command(flatten)]
    scorer: ScorerArguments,
    #[command(flatten)]
    scoring: ScoreArguments,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let Some(model) = &self.model else {
            let with_model = "--model with it";
            return match (&self.point.weights, &self.scoring.meta.meta) {
                (None, None) => self.by_scorer(output),
                (Some(weights), _) => Err(CliError::argument("--weights", weights.to_string(), with_model)),
                (None, Some(meta)) => Err(CliError::argument("--meta", meta, with_model)),
            };
        };
        let Opened { device, place, data, .. } =
            self.scoring.open(model, self.adapter.as_deref(), &self.point, &self.data)?;
        let model = self.scoring.steered_model(&device, &place, &data)?;
        for examples in data.examples.chunks(CHUNK) {
            let scored = self.scoring.score(&model, examples)?;
            for (example, answers) in examples.iter().zip(&scored) {
                for line in lines(example, answers, self.per_token) {
                    if self.json { output.json(&line)? } else { output.line(text(&line))? }
                }
            }
            output.flush()?;
        }
        Ok(())
    }
}

impl Arguments {
    /// One line per row of what a scorer says of its answers.
    fn by_scorer(&self, output: &mut Output) -> Result<(), CliError> {
        let records = self.scoring.records(&self.data)?;
        let mut scorer = self.scorer.open(&self.scoring.device()?)?;
        let progress = ProgressBar::new(records.len() as u64);
        let mut all = vec![];
        for records in records.chunks(CHUNK) {
            let items: Vec<Vec<Item>> = records.iter().map(scorers::items).collect();
            let scores = scorer.score(&items.concat(), &mut |_| true)?;
            progress.inc(records.len() as u64);
            if self.mean {
                all.extend(scores);
                continue;
            }
            let mut scores = scores.iter();
            for (record, items) in records.iter().zip(&items) {
                let mut values: Vec<Value> =
                    scores.by_ref().take(items.len()).map(|found| scorers::value(found.as_ref())).collect();
                let mut line = Map::new();
                line.insert("id".into(), record.id.as_str().into());
                match values.len() {
                    1 => line.insert("score".into(), values.remove(0)),
                    _ => line.insert("scores".into(), values.into()),
                };
                progress.suspend(|| if self.json { output.json(&line) } else { output.line(text(&line)) })?;
            }
            output.flush()?;
        }
        progress.finish_and_clear();
        if self.mean {
            let line = means(&all);
            if self.json { output.json(&line)? } else { output.line(text(&line))? }
        }
        Ok(())
    }
}

/// The mean of each score, and how many answers have it.
fn means(scores: &[Option<Scores>]) -> Map<String, Value> {
    let mean = |(name, scored): (String, Vec<(usize, f64)>)| {
        let mean = scored.iter().map(|(_, score)| score).sum::<f64>() / scored.len() as f64;
        (name, json!({ "mean": mean, "answers": scored.len() }))
    };
    by_dimension(scores, "score").into_iter().map(mean).collect()
}

/// Sequence log-prob of token log-probs.
pub(crate) fn sum(token_logps: &[f32]) -> f64 {
    token_logps.iter().map(|logp| f64::from(*logp)).sum()
}

/// The objects to print for one row.
fn lines(example: &Example, answers: &[Vec<f32>], per_token: bool) -> Vec<Map<String, Value>> {
    let line = |dimension: Option<&str>| {
        let mut line = Map::new();
        line.insert("id".into(), example.id.as_str().into());
        let named = dimension.filter(|name| *name != UNNAMED);
        named.map(|name| line.insert("dimension".into(), name.into()));
        let pair = dimension.and_then(|name| example.pair(name));
        if dimension.is_some() && pair.is_none() && answers.len() > 1 {
            line.insert("tie".into(), true.into());
        }
        let (chosen, rejected) = pair.unwrap_or((0, 1));
        let sides = [("chosen", answers.get(chosen)), ("rejected", answers.get(rejected))];
        for (side, logps) in sides.iter().filter_map(|(side, logps)| Some((side, (*logps)?))) {
            line.insert(format!("{side}_logp"), sum(logps).into());
        }
        for (side, logps) in sides.iter().filter_map(|(side, logps)| Some((side, (*logps)?))) {
            line.insert(format!("{side}_tokens"), logps.len().into());
            if per_token {
                line.insert(format!("{side}_token_logps"), json!(logps));
            }
        }
        if answers.len() > 2 {
            line.insert("logps".into(), answers.iter().map(|logps| sum(logps)).collect());
            line.insert("tokens".into(), answers.iter().map(Vec::len).collect());
        }
        line
    };
    let dimensions: Vec<&str> = example.dimensions().collect();
    if dimensions.is_empty() {
        return vec![line(None)];
    }
    dimensions.into_iter().map(|dimension| line(Some(dimension))).collect()
}

/// A line for people: `key value`, numbers rounded.
fn text(line: &Map<String, Value>) -> String {
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => format!("{:.4}", number.as_f64().unwrap_or(f64::NAN)),
        Value::Array(items) => {
            let items: Vec<String> = items
                .iter()
                .map(|item| item.as_f64().map_or_else(|| item.to_string(), |n| format!("{n:.4}")))
                .collect();
            items.join(" ")
        }
        other => other.to_string(),
    };
    let words: Vec<String> = line
        .iter()
        .map(|(key, value)| match key.as_str() {
            "id" | "dimension" => word(value),
            _ => format!("{key} {}", word(value)),
        })
        .collect();
    words.join("  ")
}
