//! From what the user wrote to a plan in which every value is settled and knows its origin.

mod front;
mod gate;
mod hold;
mod layers;
mod meta;
mod mixing;
mod online;
mod options;
mod reward;
mod rounds;
mod score;
mod sections;
mod steering;
mod stopping;
mod training;

use std::collections::{BTreeMap, HashSet};

use spo_core::objective;
use spo_data::{DataError, Dataset, TextSpec};

use super::document::{Document, Node};
use super::plan::{DataShape, Origin, RunPlan};
use super::spec::{RunSections, RunSpec};
use super::{Registries, SCHEMA, defaults};
use crate::error::ConfigError;

/// What has to be known of model and data before a run file can be resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Training pairs of each dimension, held-out ones not counted.
    pub pairs: BTreeMap<String, usize>,
    /// Judged answers, those of pairs included.
    pub answers: BTreeMap<String, usize>,
    /// The desirable ones among them.
    pub desirable: BTreeMap<String, usize>,
    /// Scored lists.
    pub lists: BTreeMap<String, usize>,
    /// Pairs labelled as ties.
    pub ties: BTreeMap<String, usize>,
    /// Distinct prompts of the training data.
    pub prompts: usize,
    /// Most tokens the model can read, if it is limited.
    pub context_length: Option<usize>,
    /// Memory of the model's weights.
    pub model_bytes: Option<usize>,
}

/// Rows of one dimension in each shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DimensionRows {
    pub pairs: usize,
    pub answers: usize,
    /// The desirable ones among the answers.
    pub desirable: usize,
    pub lists: usize,
    pub ties: usize,
    /// What an online round answers.
    pub prompts: usize,
}

impl DimensionRows {
    pub fn of(self, shape: DataShape) -> usize {
        match shape {
            DataShape::Pairs => self.pairs,
            DataShape::Answers => self.answers,
            DataShape::Lists => self.lists,
            DataShape::Prompts => self.prompts,
        }
    }
}

impl Facts {
    /// The rows of the training data in each shape.
    pub fn of(train: &Dataset) -> Self {
        let names = train.judged_dimensions();
        let counts =
            |count: fn(&Dataset, &str) -> usize| names.iter().map(|name| (name.clone(), count(train, name))).collect();
        Self {
            pairs: counts(|train, name| train.pairs(name).len()),
            answers: counts(|train, name| train.answers(name).len()),
            desirable: counts(|train, name| train.answers(name).iter().filter(|row| row.desirable).count()),
            lists: counts(|train, name| train.lists(name).len()),
            ties: counts(|train, name| train.ties(name).len()),
            prompts: train.examples.iter().map(|example| &example.prompt[..]).collect::<HashSet<_>>().len(),
            ..Self::default()
        }
    }

    /// The rows of a dimension.
    pub(crate) fn rows(&self, dimension: &str) -> DimensionRows {
        let of = |counts: &BTreeMap<String, usize>| counts.get(dimension).copied().unwrap_or(0);
        let pairs = of(&self.pairs);
        DimensionRows {
            pairs,
            answers: of(&self.answers).max(2 * pairs),
            desirable: of(&self.desirable).max(pairs),
            lists: of(&self.lists),
            ties: of(&self.ties),
            prompts: 0,
        }
    }

    /// The rows of several dimensions together.
    pub(crate) fn rows_of(&self, dimensions: &[String]) -> DimensionRows {
        dimensions.iter().map(|dimension| self.rows(dimension)).fold(DimensionRows::default(), |sum, rows| {
            DimensionRows {
                pairs: sum.pairs + rows.pairs,
                answers: sum.answers + rows.answers,
                desirable: sum.desirable + rows.desirable,
                lists: sum.lists + rows.lists,
                ties: sum.ties + rows.ties,
                prompts: 0,
            }
        })
    }

    /// Dimensions with rows, and how many: pairs where there are some.
    pub(crate) fn dimensions(&self) -> Vec<(String, usize)> {
        let mut names: Vec<&String> = self.pairs.keys().chain(self.answers.keys()).chain(self.lists.keys()).collect();
        names.sort();
        names.dedup();
        let rows = |name: &String| {
            let rows = self.rows(name);
            if rows.pairs > 0 { rows.pairs } else { rows.answers.max(rows.lists) }
        };
        names.into_iter().map(|name| (name.clone(), rows(name))).filter(|(_, rows)| *rows > 0).collect()
    }
}

/// Settles every value.
///
/// # Errors
/// A dimension the data does not have, keys that exclude each other, options the objective does not have, a `lambda`
/// that does not fit the earlier rounds, a name that is used twice or cannot be a directory.
pub fn resolve(spec: &RunSpec, facts: &Facts) -> Result<RunPlan, ConfigError> {
    let registries = spec.registries();
    Resolver { sections: spec.sections(), document: &spec.document, registries, facts, origins: BTreeMap::new() }
        .run(spec)
}

impl RunSpec {
    /// `[text]` with `max-length` settled: the model's context length unless the file gives a smaller one.
    ///
    /// # Errors
    /// `max-length` exceeds the context length; a format without its placeholder.
    pub fn text(&self, context_length: Option<usize>) -> Result<TextSpec, ConfigError> {
        let mut text = self.sections().text.clone().unwrap_or_default();
        text.check().map_err(|error| self.refused_text(&error))?;
        match (text.max_length, context_length) {
            (Some(length), Some(context)) if length > context => {
                let node = self.document.root.get("text").and_then(|text| text.get("max-length"));
                Err(wrong(
                    &self.document,
                    node.unwrap_or(&self.document.root),
                    "text.max-length",
                    format!("at most {context}, the model's context length"),
                ))
            }
            (length, context) => {
                text.max_length = length.or(context);
                Ok(text)
            }
        }
    }

    fn refused_text(&self, error: &DataError) -> ConfigError {
        let root = &self.document.root;
        let section = root.get("text").unwrap_or(root);
        match error {
            DataError::BadSetting { key, expected, .. } if section.get(key).is_some() => wrong(
                &self.document,
                section.get(key).unwrap_or(section),
                &format!("text.{key}"),
                (*expected).to_owned(),
            ),
            _ => ConfigError::Refused {
                at: self.document.place(&section.source),
                key: "text".to_owned(),
                message: error.to_string(),
                hint: error.hint(),
            },
        }
    }
}

struct Resolver<'a> {
    sections: &'a RunSections,
    document: &'a Document,
    registries: &'a Registries,
    facts: &'a Facts,
    origins: BTreeMap<String, Origin>,
}

impl<'a> Resolver<'a> {
    fn run(mut self, spec: &RunSpec) -> Result<RunPlan, ConfigError> {
        for key in ["schema", "name", "seed", "out", "holdout", "holdout-fold", "hold-share", "token-cache", "data"] {
            self.note_written(key);
        }
        let name = self.name(spec)?;
        let out = self.out(spec);
        spec.check_meta_prompts()?;
        let data = self.data();
        let steering = self.steering()?;
        let rounds = self.rounds(steering.as_ref())?;
        let warmup = self.warmup()?;
        let parallel = self.parallel(&rounds, warmup.as_ref())?;
        Ok(RunPlan {
            schema: SCHEMA,
            seed: self.sections.seed.unwrap_or(defaults::SEED),
            model: self.model()?,
            lora: self.lora()?,
            steering,
            data,
            text: self.text(spec)?,
            holdout: self.holdout()?,
            holdout_fold: self.holdout_fold()?,
            token_cache: self.sections.token_cache.clone(),
            warmup,
            hold_share: self.hold_share(&rounds)?,
            rounds,
            evaluation: self.evaluation()?,
            watchdog: self.watchdog(),
            checkpoints: self.checkpoints(),
            parallel,
            track: self.track()?,
            hub: vec![],
            name,
            out,
            origins: self.origins,
            families: self.registries.families.clone(),
        })
    }

    fn objectives(&self) -> &'a objective::Registry {
        &self.registries.objectives
    }

    fn root(&self, key: &str) -> Option<&Node> {
        self.document.root.get(key)
    }

    fn compute(&mut self, key: impl Into<String>, from: impl Into<String>) {
        self.origins.insert(key.into(), Origin::Computed { from: from.into() });
    }
}

/// A well-formed value that does not fit the rest of the run.
fn wrong(document: &Document, node: &Node, key: &str, expected: String) -> ConfigError {
    ConfigError::WrongValue {
        at: document.place(&node.source),
        key: key.to_owned(),
        found: node.describe(),
        expected,
        hint: None,
    }
}
