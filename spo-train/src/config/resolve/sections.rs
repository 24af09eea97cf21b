//! Everything but the rounds.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use spo_data::{Fold, TextSpec};
use spo_model::device::MatmulStrategy;

use super::layers::Layers;
use super::{Resolver, wrong};
use crate::config::defaults;
use crate::config::document::Node;
use crate::config::plan::{
    CheckpointPlan, EvaluationPlan, LoraPlan, ModelPlan, ParallelPlan, RoundPlan, TrackPlan, WarmupPlan, WatchdogPlan,
    unshared,
};
use crate::config::schema::section_keys;
use crate::config::spec::{LoraCondition, RunSpec, Split};
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

    pub(super) fn model(&mut self) -> Result<ModelPlan, ConfigError> {
        let plan: ModelPlan = self.section("model");
        if let Some(node) = self.root("model").and_then(|section| section.get("matmul"))
            && MatmulStrategy::named(&plan.matmul).is_none()
        {
            let known: Vec<_> = MatmulStrategy::ALL.iter().map(|strategy| strategy.name()).collect();
            return Err(wrong(self.document, node, "model.matmul", format!("one of {}", known.join(", "))));
        }
        Ok(plan)
    }

    pub(super) fn lora(&mut self) -> Result<Option<LoraPlan>, ConfigError> {
        let (document, Some(spec)) = (self.document, &self.sections.lora) else { return Ok(None) };
        let layers = Layers::default().under("lora", document.root.get("lora"), &[]);
        let defaults = match spec.condition.unwrap_or_default() {
            LoraCondition::None => defaults::lora(),
            condition => defaults::conditional_lora(condition),
        };
        let has = defaults::table(&defaults);
        let found =
            defaults::CONDITIONAL.iter().filter(|key| !has.contains_key(**key)).find_map(|key| layers.find(key));
        if let Some(found) = found {
            let conditions = match found.key.ends_with("components") {
                true => "`condition = \"contexts\"`",
                false if found.key.ends_with("concentration") => "`condition = \"weights\"`",
                false => "`condition = \"weights\"` or `\"contexts\"`",
            };
            return Err(ConfigError::Refused {
                at: document.place(&found.node.source),
                key: found.key,
                message: format!("only an adapter with {conditions} has it"),
                hint: Some("set that, or leave it out".to_owned()),
            });
        }
        let keys = section_keys("lora");
        let plan = from_table(self.settle("lora", has, &keys, &layers));
        Ok(Some(plan))
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
        if let Some(node) = self.root("evaluation").and_then(|section| section.get("kl-path"))
            && plan.kl_path
            && plan.kl_samples < 2
        {
            let expected = "kl-samples of 2 or more: the divergence is estimated on sampled responses".to_owned();
            return Err(wrong(self.document, node, "evaluation.kl-path", expected));
        }
        if let Some(node) = self.root("evaluation").and_then(|section| section.get("command")) {
            let words = plan.command.as_deref().and_then(shlex::split);
            if words.is_none_or(|words| words.is_empty()) {
                let expected = "a program with its arguments, every quote closed".to_owned();
                return Err(wrong(self.document, node, "evaluation.command", expected));
            }
        }
        Ok(plan)
    }

    pub(super) fn watchdog(&mut self) -> WatchdogPlan {
        self.section("watchdog")
    }

    pub(super) fn track(&mut self) -> Result<TrackPlan, ConfigError> {
        let plan: TrackPlan = self.section("track");
        if let Some(node) = self.root("track").and_then(|section| section.get("mlflow")) {
            let address = plan.mlflow.as_deref().unwrap_or_default();
            if !["http://", "https://"].iter().any(|scheme| address.starts_with(scheme)) {
                let expected = "an address such as http://127.0.0.1:5000".to_owned();
                return Err(wrong(self.document, node, "track.mlflow", expected));
            }
        }
        Ok(plan)
    }

    pub(super) fn checkpoints(&mut self) -> CheckpointPlan {
        self.section("checkpoints")
    }

    pub(super) fn parallel(
        &mut self,
        rounds: &[RoundPlan],
        warmup: Option<&WarmupPlan>,
    ) -> Result<ParallelPlan, ConfigError> {
        let plan: ParallelPlan = self.section("parallel");
        let node = self.root("parallel").and_then(|section| section.get("shards"));
        match node.zip(unshared(plan.shards, rounds, warmup)) {
            None => Ok(plan),
            Some((node, message)) => Err(ConfigError::Refused {
                at: self.document.place(&node.source),
                key: "parallel.shards".to_owned(),
                message,
                hint: Some("one shard is the batch as it is".to_owned()),
            }),
        }
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
        let written = |key: &'static str| self.root(key).map(|node| (key, node));
        let (share, fold) = (written("holdout"), written("holdout-fold"));
        let test = self.sections.data.iter().position(test).map(|index| format!("data.{index}.split"));
        match (share.or(fold), test) {
            (Some((key, node)), Some(other)) => Err(self.exclusive(key, node, other)),
            (_, Some(_)) => Ok(None),
            _ => match (share, fold) {
                (Some((key, node)), Some((other, _))) => Err(self.exclusive(key, node, other.to_owned())),
                (None, Some(_)) => Ok(None),
                _ => Ok(Some(self.sections.holdout.unwrap_or(defaults::HOLDOUT))),
            },
        }
    }

    fn exclusive(&self, key: &str, node: &Node, other: String) -> ConfigError {
        ConfigError::Exclusive { at: self.document.place(&node.source), key: key.to_owned(), other }
    }

    /// The part of the prompts that is held out, if one is.
    pub(super) fn holdout_fold(&self) -> Result<Option<Fold>, ConfigError> {
        let Some((node, text)) = self.root("holdout-fold").zip(self.sections.holdout_fold.as_ref()) else {
            return Ok(None);
        };
        let fold =
            Fold::parse(text).ok_or_else(|| wrong(self.document, node, "holdout-fold", Fold::EXPECTED.to_owned()));
        fold.map(Some)
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
    pub(super) fn section<T: DeserializeOwned>(&mut self, name: &str) -> T {
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
