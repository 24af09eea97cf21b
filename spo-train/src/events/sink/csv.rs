//! The figures of a run as tables for spreadsheets: `metrics.csv` with a row per optimiser step, `held-out.csv` with
//! a row per look at the held-out pairs and dimension, `evaluations.csv` with a row per finished policy, dimension,
//! score and part of the pairs; with a row per step and dimension `replayed.csv`, and with one per two dimensions
//! `gradients.csv`, where there is any; where a scorer is asked, `answers.csv` and `win-rates.csv` with a row per policy and dimension.

use crate::TrainError;
use crate::events::{Event, HeldOut, Replayed, Sink, StepFigures};
use csv::Writer;
use spo_eval::{AnswerScores, DimensionScore, GradientGram, ScoreKind, WinRate};
use std::fs::File;
use std::path::{Path, PathBuf};

const METRICS: [&str; 23] = [
    "at",
    "phase",
    "step",
    "steps",
    "epoch",
    "loss",
    "grad-norm",
    "learning-rate",
    "accuracy",
    "margin",
    "chosen-log-ratio",
    "rejected-log-ratio",
    "chosen-tokens",
    "margin-offset",
    "kl",
    "tokens",
    "seconds",
    "memory-bytes",
    "degree-accuracy",
    "degree-loss",
    "signal-to-noise",
    "score",
    "answer-tokens",
];

const HELD_OUT: [&str; 10] = [
    "at",
    "phase",
    "step",
    "loss",
    "dimension",
    "pairs",
    "accuracy",
    "margin",
    "chosen-log-ratio",
    "rejected-log-ratio",
];

const EVALUATIONS: [&str; 13] = [
    "at",
    "policy",
    "step",
    "dimension",
    "score",
    "pairs-of",
    "pairs",
    "prompts",
    "accuracy",
    "accuracy-low",
    "accuracy-high",
    "mean-margin",
    "margin-stderr",
];

const ANSWERS: [&str; 8] = ["at", "policy", "dimension", "answers", "mean", "mean-low", "mean-high", "mean-tokens"];

const WIN_RATES: [&str; 13] = [
    "at",
    "policy",
    "against",
    "dimension",
    "wins",
    "ties",
    "losses",
    "rate",
    "rate-low",
    "rate-high",
    "rate-at-equal-length",
    "mean",
    "mean-against",
];

const REPLAYED: [&str; 7] = ["at", "phase", "step", "dimension", "pairs", "loss", "accuracy"];

const GRADIENTS: [&str; 7] = ["at", "phase", "step", "first", "second", "inner-product", "cosine"];

/// The tables of a run.
#[derive(Debug)]
pub struct Tables {
    out: PathBuf,
    metrics: Table,
    held_out: Table,
    evaluations: Table,
    /// Made when there is a row for them.
    answers: Option<Table>,
    win_rates: Option<Table>,
    replayed: Option<Table>,
    gradients: Option<Table>,
}

#[derive(Debug)]
struct Table {
    path: PathBuf,
    writer: Writer<File>,
}

impl Table {
    fn create(path: PathBuf, header: &[&str]) -> Result<Self, TrainError> {
        let file = File::create(&path).map_err(|e| TrainError::io(&path, e))?;
        let mut table = Self { writer: Writer::from_writer(file), path };
        table.row(header)?;
        Ok(table)
    }

    fn row<T: AsRef<[u8]>>(&mut self, cells: &[T]) -> Result<(), TrainError> {
        let written = self.writer.write_record(cells).map_err(std::io::Error::from);
        written.and_then(|()| self.writer.flush()).map_err(|e| TrainError::io(&self.path, e))
    }
}

impl Tables {
    /// New tables in a run directory.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn create(out: &Path) -> Result<Self, TrainError> {
        Ok(Self {
            out: out.into(),
            answers: None,
            win_rates: None,
            replayed: None,
            gradients: None,
            metrics: Table::create(out.join("metrics.csv"), &METRICS)?,
            held_out: Table::create(out.join("held-out.csv"), &HELD_OUT)?,
            evaluations: Table::create(out.join("evaluations.csv"), &EVALUATIONS)?,
        })
    }
}

impl Sink for Tables {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        match event {
            Event::Step(figures) => {
                self.metrics.row(&metrics(seconds, figures))?;
                let row = |of| {
                    late(&mut self.replayed, &self.out, "replayed.csv", &REPLAYED)?.row(&replayed(seconds, figures, of))
                };
                figures.replayed.iter().try_for_each(row)
            }
            Event::Gradients(gram) => gram.pairs().try_for_each(|pair| {
                late(&mut self.gradients, &self.out, "gradients.csv", &GRADIENTS)?.row(&cosine(seconds, gram, pair))
            }),
            Event::HeldOut(found) => held_out(seconds, found).iter().try_for_each(|row| self.held_out.row(row)),
            Event::Evaluated { policy, step, scores, .. } => {
                let rows = scores.iter().flat_map(|score| evaluations(seconds, policy, *step, score));
                rows.into_iter().try_for_each(|row| self.evaluations.row(&row))
            }
            Event::AnswersScored(scores) => {
                late(&mut self.answers, &self.out, "answers.csv", &ANSWERS)?.row(&answers(seconds, scores))
            }
            Event::WinRate(found) => {
                late(&mut self.win_rates, &self.out, "win-rates.csv", &WIN_RATES)?.row(&win_rate(seconds, found))
            }
            _ => Ok(()),
        }
    }

    fn earlier(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        self.event(seconds, event)
    }
}

/// A table that is made with its first row.
fn late<'t>(
    table: &'t mut Option<Table>,
    out: &Path,
    name: &str,
    header: &[&str],
) -> Result<&'t mut Table, TrainError> {
    match table {
        Some(table) => Ok(table),
        none => Ok(none.insert(Table::create(out.join(name), header)?)),
    }
}

fn answers(seconds: f64, scores: &AnswerScores) -> [String; ANSWERS.len()] {
    [
        seconds.to_string(),
        scores.policy.clone(),
        scores.dimension.clone(),
        scores.answers.to_string(),
        scores.mean.to_string(),
        scores.interval.0.to_string(),
        scores.interval.1.to_string(),
        scores.mean_tokens.to_string(),
    ]
}

fn win_rate(seconds: f64, found: &WinRate) -> [String; WIN_RATES.len()] {
    [
        seconds.to_string(),
        found.a.clone(),
        found.b.clone(),
        found.dimension.clone(),
        found.wins.to_string(),
        found.ties.to_string(),
        found.losses.to_string(),
        found.rate.to_string(),
        found.rate_interval.0.to_string(),
        found.rate_interval.1.to_string(),
        optional(found.length_controlled),
        found.a_score.to_string(),
        found.b_score.to_string(),
    ]
}

/// The value, or an empty cell.
fn optional(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn metrics(seconds: f64, figures: &StepFigures) -> [String; METRICS.len()] {
    [
        seconds.to_string(),
        figures.phase.clone(),
        figures.step.to_string(),
        figures.steps.to_string(),
        figures.epoch.to_string(),
        figures.loss.to_string(),
        figures.grad_norm.to_string(),
        figures.learning_rate.to_string(),
        optional(figures.accuracy),
        optional(figures.margin),
        optional(figures.chosen_log_ratio),
        optional(figures.rejected_log_ratio),
        optional(figures.chosen_tokens),
        optional(figures.margin_offset),
        optional(figures.kl),
        figures.tokens.to_string(),
        figures.seconds.to_string(),
        figures.memory_bytes.to_string(),
        optional(figures.degree_accuracy),
        optional(figures.degree_loss),
        optional(figures.signal_to_noise),
        optional(figures.score),
        optional(figures.answer_tokens),
    ]
}

fn replayed(seconds: f64, figures: &StepFigures, of: &Replayed) -> [String; REPLAYED.len()] {
    [
        seconds.to_string(),
        figures.phase.clone(),
        figures.step.to_string(),
        of.dimension.clone(),
        of.pairs.to_string(),
        of.loss.to_string(),
        of.accuracy.to_string(),
    ]
}

fn cosine(seconds: f64, gram: &GradientGram, (first, second): (usize, usize)) -> [String; GRADIENTS.len()] {
    [
        seconds.to_string(),
        gram.phase.clone(),
        gram.step.to_string(),
        gram.dimensions[first].clone(),
        gram.dimensions[second].clone(),
        gram.gram[first][second].to_string(),
        optional(gram.cosine(first, second)),
    ]
}

/// One row per dimension; one without a dimension in a warm-up.
fn held_out(seconds: f64, found: &HeldOut) -> Vec<[String; HELD_OUT.len()]> {
    let row = |[dimension, pairs, accuracy, margin, chosen, rejected]: [String; 6]| {
        let [at, step, loss] = [seconds.to_string(), found.step.to_string(), found.loss.to_string()];
        [at, found.phase.clone(), step, loss, dimension, pairs, accuracy, margin, chosen, rejected]
    };
    if found.dimensions.is_empty() {
        return vec![row(Default::default())];
    }
    let of_dimension = |of: &crate::events::HeldOutDimension| {
        row([
            of.dimension.clone(),
            of.pairs.to_string(),
            of.accuracy.to_string(),
            of.margin.to_string(),
            optional(of.chosen_log_ratio),
            optional(of.rejected_log_ratio),
        ])
    };
    found.dimensions.iter().map(of_dimension).collect()
}

fn evaluations(seconds: f64, policy: &str, step: u64, score: &DimensionScore) -> Vec<[String; EVALUATIONS.len()]> {
    let row = |(subset, tally): (&String, &spo_eval::Tally)| {
        [
            seconds.to_string(),
            policy.to_owned(),
            step.to_string(),
            score.dimension.clone(),
            kind(score.kind),
            subset.clone(),
            tally.pairs.to_string(),
            tally.prompts.to_string(),
            tally.accuracy.to_string(),
            tally.interval.0.to_string(),
            tally.interval.1.to_string(),
            tally.mean_margin.to_string(),
            tally.margin_stderr.to_string(),
        ]
    };
    score.subsets.iter().map(row).collect()
}

/// The kind's name as in events.jsonl.
fn kind(kind: ScoreKind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => name,
        _ => unreachable!("a kind is written as its name"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::events::HeldOutDimension;

    #[test]
    fn rows_have_the_cells_of_their_header() {
        let dir = tempfile::tempdir().unwrap();
        let mut tables = Tables::create(dir.path()).unwrap();
        let dimension = |name: &str| HeldOutDimension {
            dimension: name.into(),
            pairs: 3,
            accuracy: 0.5,
            margin: 1.25,
            chosen_log_ratio: Some(-1.0),
            rejected_log_ratio: Some(-2.25),
        };
        let mut found = HeldOut {
            phase: "warmup".into(),
            step: 4,
            steps: 8,
            loss: 0.75,
            degree_accuracy: None,
            score: None,
            dimensions: vec![],
            tokens: 10,
            seconds: 1.0,
        };
        tables.event(1.0, &Event::HeldOut(found.clone())).unwrap();
        found.dimensions = vec![dimension("honesty"), dimension("a, \"b\"")];
        tables.event(2.5, &Event::HeldOut(found)).unwrap();
        let text = std::fs::read_to_string(dir.path().join("held-out.csv")).unwrap();
        insta::assert_snapshot!(text, @r#"
        at,phase,step,loss,dimension,pairs,accuracy,margin,chosen-log-ratio,rejected-log-ratio
        1,warmup,4,0.75,,,,,,
        2.5,warmup,4,0.75,honesty,3,0.5,1.25,-1,-2.25
        2.5,warmup,4,0.75,"a, ""b""",3,0.5,1.25,-1,-2.25
        "#);
    }
}
