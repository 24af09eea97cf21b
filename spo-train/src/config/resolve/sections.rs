//! Everything but the rounds.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use spo_data::TextSpec;

use super::layers::Layers;
use super::{Resolver, wrong};
use crate::config::defaults;
use crate::config::document::Node;
use crate::config::plan::{CheckpointPlan, EvaluationPlan, LoraPlan, ModelPlan, RoundPlan, WatchdogPlan};
use crate::config::schema::section_keys;
use crate::config::spec::{RunSpec, Split};
use crate::error::ConfigError;

impl Resolver<'_> {
    pub(super) fn name(&mut self, spec: &RunSpec) -> Result<String, ConfigError> {
        let name = spec.name();
        match self.root("name") {
            Some(node) => self.check_directory_name("name", node, &name)?,
            None => self.compute("name", "the run file's name"),
        }
        Ok(name)
    }

    pub(super) fn out(&mut self, spec: &RunSpec) -> PathBuf {
        if self.sections.out.is_none() {
            self.compute("out", "name");
        }
        spec.out()
    }

    pub(super) fn model(&mut self) -> ModelPlan {
        self.section("model")
    }

    pub(super) fn lora(&mut self) -> Option<LoraPlan> {
        self.root("lora")?;
        Some(self.section("lora"))
    }

    pub(super) fn evaluation(&mut self) -> Result<EvaluationPlan, ConfigError> {
        let plan: EvaluationPlan = self.section("evaluation");
        if let Some(node) = self.root("evaluation").and_then(|section| section.get("scorer")) {
            self.check_scorer("evaluation.scorer", node)?;
            if plan.kl_samples == 0 {
                let expected = "kl-samples above 0: what is scored are the responses that are sampled";
                return Err(wrong(self.document, node, "evaluation.scorer", expected.to_owned()));
            }
        }
        Ok(plan)
    }

    pub(super) fn watchdog(&mut self) -> WatchdogPlan {
        self.section("watchdog")
    }

    pub(super) fn checkpoints(&mut self) -> CheckpointPlan {
        self.section("checkpoints")
    }

    pub(super) fn text(&mut self, spec: &RunSpec) -> Result<TextSpec, ConfigError> {
        let text = spec.text(self.facts.context_length)?;
        let written = self.sections.text.as_ref().and_then(|text| text.max_length);
        if written.is_none() && text.max_length.is_some() {
            self.compute("text.max-length", "the model's context length");
        }
        self.note_written("text");
        Ok(text)
    }

    pub(super) fn holdout(&mut self) -> Result<Option<f64>, ConfigError> {
        let test = |entry: &crate::config::spec::DataEntry| entry.split == Split::Test;
        let Some(index) = self.sections.data.iter().position(test) else {
            return Ok(Some(self.sections.holdout.unwrap_or(defaults::HOLDOUT)));
        };
        match self.root("holdout") {
            None => Ok(None),
            Some(node) => Err(ConfigError::Exclusive {
                at: self.document.place(&node.source),
                key: "holdout".to_owned(),
                other: format!("data.{index}.split"),
            }),
        }
    }

    /// Only bounds need pairs of their own.
    pub(super) fn hold_share(&self, rounds: &[RoundPlan]) -> Result<Option<f64>, ConfigError> {
        if rounds.iter().flat_map(|round| &round.arms).any(|arm| arm.hold.is_some()) {
            return Ok(Some(self.sections.hold_share.unwrap_or(defaults::HOLD_SHARE)));
        }
        match self.root("hold-share") {
            None => Ok(None),
            Some(node) => Err(ConfigError::Refused {
                at: self.document.place(&node.source),
                key: "hold-share".to_owned(),
                message: "no round has a `hold` whose λ these pairs would drive".to_owned(),
                hint: Some("leave it out, and all pairs are trained on".to_owned()),
            }),
        }
    }

    /// A section of plain values: every key that its type has is settled.
    fn section<T: DeserializeOwned>(&mut self, name: &str) -> T {
        let defaults = defaults::sections();
        let defaults = defaults.into_iter().find(|(section, _)| *section == name);
        let defaults = defaults.map_or_else(Map::new, |(_, table)| table);
        let document = self.document;
        let layers = Layers::default().under(name, document.root.get(name), &[]);
        from_table(self.settle(name, defaults, &section_keys(name), &layers))
    }

    /// Names of runs, rounds and arms become directories.
    pub(super) fn check_directory_name(&self, key: &str, node: &Node, name: &str) -> Result<(), ConfigError> {
        let plain = |letter: char| letter.is_alphanumeric() || "-_.+".contains(letter);
        if !name.is_empty() && !name.starts_with('.') && name.chars().all(plain) {
            return Ok(());
        }
        let expected = "a name of letters, digits, `-`, `_`, `+` and `.`: it becomes a directory";
        Err(wrong(self.document, node, key, expected.to_owned()))
    }
}

/// Reads settled values.
pub(super) fn from_table<T: DeserializeOwned>(table: Map<String, Value>) -> T {
    serde_json::from_value(Value::Object(table)).expect("the schema admits only what the plan's types take")
}
