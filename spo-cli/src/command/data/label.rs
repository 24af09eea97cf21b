//! `spo data label`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde_json::{Map, Value, json};
use spo_data::Record;
use spo_score::Item;
use spo_score::pairing::{Pairing, ScoredPair, by_dimension, pairs};

use crate::error::CliError;
use crate::inputs::{DeviceArguments, LayoutArguments};
use crate::output::{Output, note};
use crate::scorers::{self, ScorerArguments};

/// What the one number of a scorer without dimensions is called.
const UNNAMED: &str = "preference";
/// Rows whose answers are scored together.
const CHUNK: usize = 64;

/// Label answers with a scorer, as rows to train on
///
/// Rows have a prompt and answers: {"prompt", "responses": […]}, or any layout with answers (`spo list schemas`). Pairs
/// are rows of the layout `prefs` with the scores of both answers, whose difference is the strength that mm-dpo looks at;
/// lists are rows of `scored-list`. A scorer without a dimension labels the dimension `preference`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Files, directories or patterns
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    scorer: ScorerArguments,
    /// The file to write, JSON lines
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What the rows are
    #[arg(long = "as", value_enum, default_value_t = Shape::Pairs)]
    shape: Shape,
    /// Which answers become pairs
    #[arg(long, value_enum, default_value_t = Which::BestWorst)]
    pair: Which,
    /// Pairs whose scores differ by less are left out
    #[arg(long, value_name = "G", default_value_t = 0.0)]
    min_gap: f64,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    layout: LayoutArguments,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shape {
    /// Two answers with a preference per dimension
    Pairs,
    /// All answers of a prompt with their scores
    Lists,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    /// The best with the worst, for each dimension
    BestWorst,
    /// The best with one of the others
    BestRandom,
    /// Every two answers
    All,
}

impl Which {
    fn pairing(self) -> Pairing {
        match self {
            Self::BestWorst => Pairing::BestWorst,
            Self::BestRandom => Pairing::BestRandom,
            Self::All => Pairing::All,
        }
    }
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        if self.scorer.scorer.is_empty() {
            return Err(CliError::argument("--scorer", "none", "who scores; `spo list scorers` shows the kinds"));
        }
        if !(self.min_gap.is_finite() && self.min_gap >= 0.0) {
            return Err(CliError::argument("--min-gap", self.min_gap.to_string(), "a number of at least 0"));
        }
        if self.out.exists() {
            return Err(CliError::Exists { path: self.out.clone() });
        }
        let records = self.layout.records(&self.files)?;
        let mut scorer = self.scorer.open(&self.device.open()?)?;
        let progress = ProgressBar::new(records.len() as u64);
        let (mut rows, mut silent, mut undecided) = (vec![], 0, 0);
        for (chunk, records) in records.chunks(CHUNK).enumerate() {
            let items: Vec<Vec<Item>> = records.iter().map(scorers::items).collect();
            let mut scores = scorer.score(&items.concat(), &mut |_| true)?.into_iter();
            for (index, (record, items)) in records.iter().zip(&items).enumerate() {
                let scores: Vec<_> = scores.by_ref().take(items.len()).collect();
                silent += scores.iter().filter(|scores| scores.is_none()).count();
                let row = (chunk * CHUNK + index) as u64;
                let made = self.rows(record, &scores, row);
                undecided += usize::from(made.is_empty());
                rows.extend(made);
            }
            progress.inc(records.len() as u64);
        }
        progress.finish_and_clear();
        if rows.is_empty() {
            let dropped =
                vec![format!("{undecided} rows without a pair of different scores, {silent} answers without a score")];
            return Err(CliError::NoRows { file: self.out.display().to_string(), dropped });
        }
        let text: String = rows.iter().map(|row| Value::Object(row.clone()).to_string() + "\n").collect();
        spo_train::persist::durable::write(&self.out, text.as_bytes())?;
        if undecided + silent > 0 {
            note(format_args!(
                "{undecided} rows left out, as no two scores differ enough; {silent} answers without a score"
            ));
        }
        output.line(format_args!("{} rows written to {}", rows.len(), self.out.display()))
    }

    /// What one row becomes.
    fn rows(&self, record: &Record, scores: &[Option<spo_score::Scores>], row: u64) -> Vec<Map<String, Value>> {
        let name = UNNAMED;
        match self.shape {
            Shape::Pairs => {
                let found = pairs(scores, name, self.pair.pairing(), self.min_gap, row);
                let several = found.len() > 1;
                found
                    .iter()
                    .enumerate()
                    .map(|(number, pair)| pair_row(record, pair, several.then_some(number)))
                    .collect()
            }
            Shape::Lists => list_row(record, &by_dimension(scores, name)).into_iter().collect(),
        }
    }
}

/// What a scorer says of one answer.
pub(super) type Scored = Option<spo_score::Scores>;

/// The fields that every row has.
pub(super) fn start(record: &Record, id: String) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("id".into(), id.into());
    record.system.as_ref().map(|system| row.insert("system".into(), system.as_str().into()));
    row.insert("prompt".into(), record.prompt.to_json());
    row
}

fn pair_row(record: &Record, pair: &ScoredPair, number: Option<usize>) -> Map<String, Value> {
    let id = number.map_or_else(|| record.id.clone(), |number| format!("{}/{}", record.id, number + 1));
    let mut row = start(record, id);
    row.insert("response_a".into(), record.answers[pair.a].to_json());
    row.insert("response_b".into(), record.answers[pair.b].to_json());
    row.insert("prefs".into(), json!(pair.prefs));
    row.insert("scores".into(), json!(pair.scores));
    row
}

/// A list of the answers that have a score in every dimension; `None` if there is none, or they are all equal.
fn list_row(record: &Record, dimensions: &BTreeMap<String, Vec<(usize, f64)>>) -> Option<Map<String, Value>> {
    let scored = |answer: &usize| dimensions.values().all(|list| list.iter().any(|(index, _)| index == answer));
    let answers: Vec<usize> = (0..record.answers.len()).filter(scored).collect();
    let list = |scores: &Vec<(usize, f64)>| -> Vec<f64> {
        scores.iter().filter(|(index, _)| answers.contains(index)).map(|(_, score)| *score).collect()
    };
    let scores: BTreeMap<&String, Vec<f64>> = dimensions.iter().map(|(name, scores)| (name, list(scores))).collect();
    let differ = |list: &Vec<f64>| list.iter().any(|score| *score != list[0]);
    if answers.len() < 2 || !scores.values().any(differ) {
        return None;
    }
    let mut row = start(record, record.id.clone());
    row.insert("responses".into(), answers.iter().map(|index| record.answers[*index].to_json()).collect());
    row.insert("scores".into(), json!(scores));
    Some(row)
}
