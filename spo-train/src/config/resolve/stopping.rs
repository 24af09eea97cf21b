//! `early-stopping` and `max-kl`: what ends a round before its steps are done.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::layers::{Found, Layers};
use super::{Resolver, wrong};
use crate::config::defaults;
use crate::config::plan::EarlyStoppingPlan;
use crate::config::spec::{EarlyStoppingSpec, StoppingMetric};
use crate::config::validate::join;
use crate::error::ConfigError;

/// What is trained on.
pub(super) struct Target<'a> {
    /// `None` in a warm-up.
    pub dimension: Option<&'a str>,
    /// Rows, and what one is.
    pub rows: usize,
    pub kind: &'static str,
    /// Shares of a step's pairs that are of other dimensions.
    pub replay: BTreeMap<String, f64>,
}

impl Resolver<'_> {
    pub(super) fn early_stopping(
        &mut self,
        prefix: &str,
        layers: &Layers<'_>,
        target: &Target,
    ) -> Result<Option<EarlyStoppingPlan>, ConfigError> {
        let Some(found) = layers.find("early-stopping") else { return Ok(None) };
        let spec: EarlyStoppingSpec =
            serde_json::from_value(found.node.to_json()).expect("the schema admits only what the type takes");
        self.note(&join(prefix, "early-stopping"), found.node);
        let metric = spec.metric.unwrap_or(StoppingMetric::Loss);
        let misplaced = |key: &str, expected: &str| {
            let node = found.node.get(key).unwrap_or(found.node);
            Err(wrong(self.document, node, &join(&found.key, key), expected.to_owned()))
        };
        match (target.dimension, metric, &spec.dimension) {
            (None, StoppingMetric::Loss, None) => {}
            (None, StoppingMetric::Loss, Some(_)) => return misplaced("dimension", "no dimension: a warm-up has none"),
            (None, ..) => return misplaced("metric", "\"loss\": nothing else is measured in a warm-up"),
            (Some(own), StoppingMetric::Loss, Some(other)) if own != other => {
                return misplaced("dimension", &format!("{own:?}: the loss is the round's own"));
            }
            (Some(_), _, Some(dimension)) => {
                self.check_round_dimension(&found, "dimension", dimension)?;
            }
            _ => {}
        }
        if spec.dimension.is_none() && target.dimension.is_some() {
            self.compute(join(prefix, "early-stopping.dimension"), "the round's dimension");
        }
        Ok(Some(EarlyStoppingPlan {
            metric,
            dimension: spec.dimension.or(target.dimension.map(str::to_owned)),
            patience: spec.patience.unwrap_or(defaults::PATIENCE),
        }))
    }

    /// Only the dimensions of rounds are measured.
    pub(super) fn check_round_dimension(&self, found: &Found, key: &str, name: &str) -> Result<(), ConfigError> {
        let rounds = self.sections.rounds.iter().flat_map(|round| round.dimension.names()).map(String::as_str);
        if rounds.clone().any(|dimension| dimension == name) {
            return Ok(());
        }
        let mut known: Vec<(String, usize)> = vec![];
        for dimension in rounds {
            if known.iter().all(|(name, _)| name != dimension) {
                known.push((dimension.to_owned(), self.facts.pairs.get(dimension).copied().unwrap_or(0)));
            }
        }
        let source = match found.node.table().and_then(|table| table.get(name)) {
            Some(entry) => &entry.key,
            None => &found.node.get(key).unwrap_or(found.node).source,
        };
        let key = if key.is_empty() { found.key.clone() } else { join(&found.key, key) };
        Err(ConfigError::UnknownDimension { at: self.document.place(source), key, found: name.to_owned(), known })
    }

    /// What ends a round early is measured at its evaluations, so it must have some.
    pub(super) fn check_looks(&self, values: &Map<String, Value>, layers: &Layers<'_>) -> Result<(), ConfigError> {
        if values["eval-every"].as_u64() != Some(0) {
            return Ok(());
        }
        let set = |key: &str| layers.find(key).filter(|found| found.node.to_json().as_f64() != Some(0.0));
        match ["early-stopping", "max-kl"].into_iter().find_map(set) {
            Some(found) => Err(self.needs_looks(&found)),
            None => Ok(()),
        }
    }

    pub(super) fn needs_looks(&self, found: &Found) -> ConfigError {
        ConfigError::Refused {
            at: self.document.place(&found.node.source),
            key: found.key.clone(),
            message: "it acts where the running policy is measured, but eval-every is 0".to_owned(),
            hint: Some("set eval-every, such as `eval-every = 20`".to_owned()),
        }
    }
}
