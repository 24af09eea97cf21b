//! `spo data goals`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Map, Value};
use spo_data::goals::Goals;
use spo_data::{PromptText, Record};
use spo_score::Item;
use spo_score::pairing::by_dimension;

use super::label::{Scored, start};
use crate::error::CliError;
use crate::goals::{read_goals, uniforms, write_goals};
use crate::inputs::{DeviceArguments, LayoutArguments};
use crate::output::{Output, note};
use crate::scorers::{self, ScorerArguments};

/// Rows whose answers are scored together.
const CHUNK: usize = 64;

/// Put the scores of answers into their prompts, as rewards in context (RiC)
///
/// Every answer of a row becomes a row of its own: the prompt with the answer's normalised scores behind it, that answer as
/// the chosen one, and as the rejected one the answer whose scores are farthest away. Trained with the objective sft, a model
/// gives answers that fit the scores in the prompt: `spo generate --goals`. Scores come of scorers with DIMENSION= in front,
/// or with --labels of the rows: their scores, else 1 for the chosen answer and -1 for the rejected one.
///
/// With --draw N no answer is looked at: N of the rows' prompts are written with goals that are drawn, for a model to answer.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["scorer", "labels", "draw"]))]
pub(crate) struct Arguments {
    /// Files, directories or patterns
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    scorer: ScorerArguments,
    /// Take the scores that the rows have
    #[arg(long)]
    labels: bool,
    /// Write this many prompts with drawn goals: of one dimension anything, of the others the most
    #[arg(long, value_name = "N")]
    draw: Option<usize>,
    /// Mean, deviation and range of each dimension's scores, JSON: read where it is there, else written
    #[arg(long, value_name = "FILE")]
    scale: PathBuf,
    /// Keep answers only that reach this quantile of the rows' scores in some dimension
    #[arg(long, value_name = "Q", requires = "scorer")]
    keep: Option<f64>,
    /// Give every answer the scores of another one: the control, whose model must not heed its goals
    #[arg(long, conflicts_with = "draw")]
    shuffle: bool,
    /// The file to write, JSON lines
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Seed of what is drawn or shuffled
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    layout: LayoutArguments,
}

/// Scores of one answer by dimension.
type AnswerScores = BTreeMap<String, f64>;

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        if self.out.exists() {
            return Err(CliError::Exists { path: self.out.clone() });
        }
        if let Some(keep) = self.keep.filter(|keep| !(0.0..1.0).contains(keep)) {
            return Err(CliError::argument("--keep", keep.to_string(), "a number from 0 to below 1"));
        }
        let known = if self.scale.exists() { Some(read_goals(&self.scale)?) } else { None };
        let mut records = self.layout.records(&self.files)?;
        if let Some(record) = records.iter().find(|record| matches!(record.prompt, PromptText::Ids(_))) {
            let (at, expected) = (record.id.clone(), "text or messages, for goals to stand behind".into());
            return Err(CliError::Unexpected { at, found: "a prompt of token ids".into(), expected, usage: false });
        }
        if let Some(goals) = &known {
            records.iter_mut().for_each(|record| record.prompt = goals.bare(&record.prompt));
        }
        let rows = match self.draw {
            Some(count) => self.drawn(&records, known.as_ref(), count)?,
            None => self.scored(&records, known)?,
        };
        let text: String = rows.iter().map(|row| Value::Object(row.clone()).to_string() + "\n").collect();
        spo_train::persist::durable::write(&self.out, text.as_bytes())?;
        output.line(format_args!("{} rows written to {}", rows.len(), self.out.display()))
    }

    /// Prompts with goals that are asked for.
    fn drawn(
        &self,
        records: &[Record],
        goals: Option<&Goals>,
        count: usize,
    ) -> Result<Vec<Map<String, Value>>, CliError> {
        let goals = goals.ok_or_else(|| {
            CliError::argument("--scale", "no such file", "the file that was written with the training rows")
        })?;
        let mut prompts: Vec<&Record> = vec![];
        for record in records {
            if !prompts.iter().rev().take(CHUNK).any(|other| other.prompt == record.prompt) {
                prompts.push(record);
            }
        }
        if prompts.is_empty() {
            return Err(CliError::NoRows { file: self.files[0].display().to_string(), dropped: vec![] });
        }
        let row = |number: usize| {
            let draws = uniforms(self.seed, number as u64, goals.dimensions.len() + 1);
            // As the authors do, with replacement.
            let record = prompts[(draws[0] * prompts.len() as f64) as usize];
            let prompt = goals.tag(&record.prompt, &goals.drawn(&draws[1..]));
            let mut row = start(record, format!("{}#{}", record.id, number + 1));
            row.insert("prompt".into(), prompt.to_json());
            row
        };
        Ok((0..count).map(row).collect())
    }

    /// Rows of the records' answers with their scores.
    fn scored(&self, records: &[Record], known: Option<Goals>) -> Result<Vec<Map<String, Value>>, CliError> {
        let mut scores: Vec<Vec<AnswerScores>> = match self.labels {
            true => records.iter().map(labelled).collect(),
            false => self.by_scorer(records)?,
        };
        if self.shuffle {
            shuffle(&mut scores, self.seed);
        }
        let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (name, score) in scores.iter().flatten().flatten() {
            all.entry(name.clone()).or_default().push(*score);
        }
        let goals = match known {
            Some(goals) => goals,
            None => {
                let goals = Goals::of(&all).map_err(|name| CliError::Unexpected {
                    at: name,
                    found: "scores that are all equal".into(),
                    expected: "scores that differ, for goals to mean something".into(),
                    usage: false,
                })?;
                write_goals(&self.scale, &goals)?;
                goals
            }
        };
        let least =
            self.keep.map(|keep| all.iter().map(|(name, scores)| (name.clone(), quantile(scores, keep))).collect());
        let (mut rows, mut left) = (vec![], 0);
        for (record, scores) in records.iter().zip(&scores) {
            let found = rows_of(record, scores, &goals, least.as_ref());
            left += record.answers.len() - found.len();
            rows.extend(found);
        }
        if left > 0 {
            note(format_args!("{left} answers left out: without a score, alone in their row, or below --keep"));
        }
        if rows.is_empty() {
            return Err(CliError::NoRows { file: self.out.display().to_string(), dropped: vec![] });
        }
        Ok(rows)
    }

    fn by_scorer(&self, records: &[Record]) -> Result<Vec<Vec<AnswerScores>>, CliError> {
        let mut scorer = self.scorer.open(&self.device.open()?)?;
        let progress = ProgressBar::new(records.len() as u64);
        let mut all = vec![];
        for records in records.chunks(CHUNK) {
            let items: Vec<Vec<Item>> = records.iter().map(scorers::items).collect();
            let mut found = scorer.score(&items.concat(), &mut |_| true)?.into_iter();
            for items in &items {
                let found: Vec<Scored> = found.by_ref().take(items.len()).collect();
                let mut of_row = vec![AnswerScores::new(); items.len()];
                for (name, scored) in by_dimension(&found, "score") {
                    for (answer, score) in scored {
                        of_row[answer].insert(name.clone(), score);
                    }
                }
                all.push(of_row);
            }
            progress.inc(records.len() as u64);
        }
        progress.finish_and_clear();
        Ok(all)
    }
}

/// Deals the scores of all answers out anew.
fn shuffle(scores: &mut [Vec<AnswerScores>], seed: u64) {
    let all: Vec<AnswerScores> = scores.concat();
    let mut order: Vec<(f64, usize)> =
        (0..all.len()).map(|index| (uniforms(seed, index as u64, 1)[0], index)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut dealt = order.into_iter().map(|(_, index)| all[index].clone());
    scores.iter_mut().flatten().zip(&mut dealt).for_each(|(own, scores)| *own = scores);
}

/// The scores that a row has of its answers.
fn labelled(record: &Record) -> Vec<AnswerScores> {
    let mut found = vec![AnswerScores::new(); record.answers.len()];
    for (name, label) in record.labels.iter().filter(|_| record.answers.len() == 2) {
        let sign = f64::from(label.sign());
        found[0].insert(name.clone(), sign);
        found[1].insert(name.clone(), -sign);
    }
    for (name, scores) in &record.scores {
        for (own, score) in found.iter_mut().zip(scores) {
            own.insert(name.clone(), f64::from(*score));
        }
    }
    found
}

fn quantile(scores: &[f64], share: f64) -> f64 {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(share * (sorted.len() - 1) as f64).round() as usize]
}

/// A row for each answer that has a score in every dimension and is good enough.
fn rows_of(
    record: &Record,
    scores: &[AnswerScores],
    goals: &Goals,
    least: Option<&BTreeMap<String, f64>>,
) -> Vec<Map<String, Value>> {
    let normalised = |scores: &AnswerScores| -> Option<BTreeMap<String, f64>> {
        let goal = |name: &String| Some((name.clone(), goals.normalised(name, *scores.get(name)?)?));
        goals.dimensions.keys().map(goal).collect()
    };
    let all: Vec<Option<BTreeMap<String, f64>>> = scores.iter().map(normalised).collect();
    let distance = |a: &BTreeMap<String, f64>, b: &BTreeMap<String, f64>| -> f64 {
        a.iter().map(|(name, goal)| (goal - b[name]).abs()).sum()
    };
    let enough = |answer: usize| {
        least.is_none_or(|least| least.iter().any(|(name, least)| scores[answer].get(name).is_some_and(|s| s >= least)))
    };
    let mut rows = vec![];
    for (index, own) in all.iter().enumerate() {
        let Some(own) = own.as_ref().filter(|_| enough(index)) else { continue };
        let others = all.iter().enumerate().filter(|(other, _)| *other != index);
        let far = others.filter_map(|(other, scores)| Some((other, distance(own, scores.as_ref()?))));
        let Some((other, _)) = far.reduce(|a, b| if b.1 > a.1 { b } else { a }) else { continue };
        let mut row = start(record, format!("{}/{}", record.id, index + 1));
        row.insert("prompt".into(), goals.tag(&record.prompt, own).to_json());
        row.insert("chosen".into(), record.answers[index].to_json());
        row.insert("rejected".into(), record.answers[other].to_json());
        rows.push(row);
    }
    rows
}
