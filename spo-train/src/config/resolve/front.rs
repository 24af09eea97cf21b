//! Rounds of several dimensions, and what a conditional adapter asks of a run.

use std::collections::{BTreeMap, BTreeSet};

use super::Resolver;
use super::rounds::Finished;
use crate::config::document::Node;
use crate::config::plan::{DataShape, RoundPlan};
use crate::config::spec::{Best, LoraCondition, StoppingMetric};
use crate::config::validate::join;
use crate::error::ConfigError;

/// What is at fault: its key, within the round if it has a dot before it, what is wrong, what to do about it.
type Fault = (&'static str, String, &'static str);

impl Resolver<'_> {
    /// A conditional adapter is trained in one round, which weighs two dimensions or more.
    pub(super) fn check_front(&self, rounds: &[RoundPlan]) -> Result<(), ConfigError> {
        let found = self.conditional().then(|| self.front_fault(rounds)).flatten();
        found.map_or(Ok(()), |fault| Err(self.fault_of(fault, None)))
    }

    /// What a round that weighs several dimensions may not have.
    pub(super) fn check_weighing(&self, key: &str, node: &Node, round: &RoundPlan) -> Result<(), ConfigError> {
        if round.front.is_empty() {
            return Ok(());
        }
        let weights = if self.conditional() { None } else { weights_fault(round) };
        let found = weights.or_else(|| self.weighing_fault(round));
        found.map_or(Ok(()), |fault| Err(self.fault_of(fault, Some((key, node)))))
    }

    fn fault_of(&self, (key, message, hint): Fault, round: Option<(&str, &Node)>) -> ConfigError {
        let (full, mut node) = match round.filter(|_| key.starts_with('.') || key.is_empty()) {
            Some((round, node)) => (format!("{round}{key}"), node),
            None => (key.to_owned(), &self.document.root),
        };
        for name in key.split('.') {
            node = node.get(name).unwrap_or(node);
        }
        let at = self.document.place(&node.source);
        ConfigError::Refused { at, key: full, message, hint: Some(hint.to_owned()) }
    }

    /// Whether the run's adapter is conditional.
    pub(super) fn conditional(&self) -> bool {
        self.sections.lora.as_ref().is_some_and(|lora| lora.condition == Some(LoraCondition::Weights))
    }

    fn front_fault(&self, rounds: &[RoundPlan]) -> Option<Fault> {
        let fault = |key, message: &str, hint| Some((key, message.to_owned(), hint));
        let Some(round) = rounds.iter().find(|round| !round.front.is_empty()) else {
            let hint = "name them in the round: `dimension = [\"honesty\", \"helpfulness\"]`";
            return fault("lora.condition", "no round weighs several dimensions", hint);
        };
        let lora = self.sections.lora.as_ref()?;
        if rounds.len() > 1 {
            let message = "a round that trains a conditional adapter is the only round of its run";
            return fault("rounds", message, "train other rounds in runs of their own");
        }
        if !round.dimension_weights.is_empty() {
            let message = "a conditional adapter is trained at all weights: each step draws its own";
            return fault("rounds.0.dimension-weights", message, "leave `dimension-weights` out");
        }
        if self.sections.warmup.is_some() {
            let hint = "fine-tune the model in a run before, and start from its `model/`";
            return fault("warmup", "all weights share one reference, which a warm-up of the adapter would part", hint);
        }
        if lora.dora == Some(true) || lora.modules_to_save.as_ref().is_some_and(|modules| !modules.is_empty()) {
            let message = "a conditional adapter has neither magnitudes nor modules that are trained in full";
            return fault("lora", message, "leave `dora` and `modules-to-save` out");
        }
        let stack = self.root("lora")?.get("rounds").is_some_and(|node| node.to_json() == "stack");
        if stack {
            return fault("lora.rounds", "there is one round, and nothing to stack on", "leave `rounds` out");
        }
        None
    }

    /// What no round of several dimensions may have, whoever says their weights.
    fn weighing_fault(&self, round: &RoundPlan) -> Option<Fault> {
        let fault = |key, message: &str, hint| Some((key, message.to_owned(), hint));
        let distinct = round.front.iter().collect::<BTreeSet<_>>().len();
        let arms = || round.arms.iter();
        if round.front.len() < 2 || distinct < round.front.len() {
            let message = format!("found {:?}, expected two dimensions or more, each once", round.front);
            return Some((".dimension", message, "write one dimension without brackets"));
        }
        if let Some(arm) = arms().find(|arm| arm.data != DataShape::Pairs || arm.gives_rewards()) {
            let message = format!("`{}` does not learn from pairs, whose losses are weighed", arm.objective);
            return Some(("", message, "an objective on pairs, such as `dpo`"));
        }
        if round.online.is_some() {
            return fault(".online", "a round that weighs dimensions takes the data's pairs", "take `online` out");
        }
        let kept = self.sections.checkpoints.as_ref().and_then(|checkpoints| checkpoints.keep_best);
        if matches!(kept, Some(Best::Accuracy | Best::Margin)) {
            let message = "a round of several dimensions has no accuracy and no margin of its own";
            return fault("checkpoints.keep-best", message, "set `keep-best = \"loss\"`");
        }
        let by_own = arms().filter_map(|arm| arm.training.early_stopping.as_ref());
        let by_own = by_own.filter(|stopping| stopping.metric != StoppingMetric::Loss);
        let mut unnamed = by_own.filter(|stopping| stopping.dimension.as_ref() == Some(&round.dimension));
        unnamed.next()?;
        let message = "it must say whose accuracy or margin counts";
        fault("training.early-stopping", message, "set its `dimension`, or `metric = \"loss\"`")
    }

    /// The dimensions of a cumulative round: those of all rounds before it, then its own.
    pub(super) fn cumulated(
        &self,
        key: &str,
        node: &Node,
        own: Vec<String>,
        finished: &[Finished],
    ) -> Result<Vec<String>, ConfigError> {
        let refused = |message: &str, hint: &str| {
            let at = self.document.place(&node.get("cumulative").unwrap_or(node).source);
            let (key, message) = (join(key, "cumulative"), message.to_owned());
            Err(ConfigError::Refused { at, key, message, hint: Some(hint.to_owned()) })
        };
        if own.len() > 1 {
            return refused(
                "a list of dimensions is all that its round learns",
                "leave `cumulative` out, or name one dimension",
            );
        }
        let mut all: Vec<String> = vec![];
        for name in finished.iter().flat_map(|round| &round.dimensions).chain(&own) {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        match all.len() {
            1 => refused("no earlier round has another dimension", "leave `cumulative` out of the first round"),
            _ => Ok(all),
        }
    }

    /// The weights that a round gives its dimensions, equal ones unless it says others; a table without a list of them is a mistake.
    pub(super) fn dimension_weights(
        &mut self,
        node: &Node,
        key: &str,
        planned: &str,
        front: &[String],
    ) -> Result<BTreeMap<String, f64>, ConfigError> {
        let Some(found) = node.get("dimension-weights") else {
            let names: BTreeSet<&String> = front.iter().filter(|_| !self.conditional()).collect();
            let equal = 1.0 / names.len() as f64;
            return Ok(names.into_iter().map(|name| (name.clone(), equal)).collect());
        };
        if front.is_empty() {
            return Err(ConfigError::Refused {
                at: self.document.place(&found.source),
                key: join(key, "dimension-weights"),
                message: "the round has one dimension, which needs no weight".to_owned(),
                hint: Some("name several: `dimension = [\"honesty\", \"helpfulness\"]`".to_owned()),
            });
        }
        self.note(&join(planned, "dimension-weights"), found);
        Ok(serde_json::from_value(found.to_json()).expect("the schema admits only numbers"))
    }
}

/// What is wrong with the weights of a round without a condition.
fn weights_fault(round: &RoundPlan) -> Option<Fault> {
    let fault = |message: String| {
        let hint =
            "one weight of 0 to 1 for each dimension of the round, which sum to 1; or `[lora] condition = \"weights\"`";
        Some((".dimension-weights", message, hint))
    };
    let known: BTreeSet<&String> = round.front.iter().collect();
    if let Some(name) = round.dimension_weights.keys().collect::<BTreeSet<_>>().symmetric_difference(&known).next() {
        let what = if known.contains(name) { "has no weight" } else { "is none of the round's dimensions" };
        return fault(format!("{name:?} {what}"));
    }
    let sum: f64 = round.dimension_weights.values().sum();
    let wrong = round.dimension_weights.values().any(|weight| *weight < 0.0) || (sum - 1.0).abs() > 1e-4;
    wrong.then(|| fault(format!("they sum to {sum}, each at least 0")))?
}
