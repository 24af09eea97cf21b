//! `[warmup]` and the training settings of an arm.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::layers::{Found, Layers};
use super::sections::from_table;
use super::stopping::Target;
use super::{Resolver, rounds::checked_dimension};
use crate::config::defaults;
use crate::config::plan::{TrainingPlan, WarmupPlan};
use crate::config::schema::section_keys;
use crate::config::spec::{Dtype, OptimizerName};
use crate::config::validate::join;
use crate::error::ConfigError;

/// Keys that are not taken over as they are.
const WORKED_OUT: &[&str] = &["steps", "epochs", "warmup-steps", "warmup-ratio", "early-stopping"];

impl Resolver<'_> {
    pub(super) fn warmup(&mut self) -> Result<Option<WarmupPlan>, ConfigError> {
        let document = self.document;
        let Some(node) = document.root.get("warmup") else {
            return Ok(None);
        };
        let dimensions = match node.get("dimensions") {
            Some(list) => {
                self.note("warmup.dimensions", list);
                let items = list.items().iter().enumerate();
                let key = |index| format!("warmup.dimensions.{index}");
                items.map(|(index, node)| checked_dimension(document, self.facts, node, &key(index))).collect::<Result<
                    Vec<_>,
                    _,
                >>(
                )?
            }
            None => {
                self.compute("warmup.dimensions", "the rounds");
                let mut dimensions: Vec<String> = Vec::new();
                let rounds = document.root.get("rounds").into_iter().flat_map(|rounds| rounds.items());
                for (index, node) in rounds.enumerate().filter_map(|(i, round)| Some((i, round.get("dimension")?))) {
                    for dimension in self.round_dimensions(node, &format!("rounds.{index}.dimension"))? {
                        if !dimensions.contains(&dimension) {
                            dimensions.push(dimension);
                        }
                    }
                }
                dimensions
            }
        };
        let examples = dimensions.iter().map(|dimension| self.facts.rows(dimension).desirable).sum();
        let layers = Layers::default().under("warmup", Some(node), &[]).under(
            "training",
            document.root.get("training"),
            &["steps", "epochs", "learning-rate", "early-stopping", "max-kl"],
        );
        let training = self.training(
            "warmup",
            &layers,
            &Target { dimension: None, rows: examples, kind: "answers", replay: BTreeMap::new() },
        )?;
        Ok(Some(WarmupPlan { dimensions, training }))
    }

    /// Settings of one arm or the warm-up; origins go under `prefix`.
    pub(super) fn training(
        &mut self,
        prefix: &str,
        layers: &Layers<'_>,
        target: &Target,
    ) -> Result<TrainingPlan, ConfigError> {
        let optimizer = optimizer(layers);
        let mut defaults = defaults::table(&defaults::training());
        let rate = defaults::learning_rate(self.sections.lora.is_some(), target.dimension.is_none());
        defaults.insert("learning-rate".to_owned(), json!(rate));
        if optimizer.is_zeroth_order() {
            defaults = defaults::table(&defaults::zeroth_order(optimizer, self.sections.lora.is_some()));
        }
        let default_epochs = defaults.remove("epochs").unwrap_or_default();
        let default_ratio = defaults.remove("warmup-ratio").unwrap_or_default();
        let mut plain = section_keys("training");
        let unused = unused(optimizer);
        plain.retain(|key| !WORKED_OUT.contains(key) && !unused.iter().any(|(name, _)| name == key));
        let mut values = self.settle(prefix, defaults, &plain, layers);

        let (rows, kind) = (target.rows, target.kind);
        let of_step = |share: &f64, pairs: u64| (share * pairs as f64).round() as u64;
        let per_step = values["pairs-per-step"].as_u64().unwrap_or(1);
        let replayed = target.replay.values().map(|share| of_step(share, per_step)).sum();
        // Those that are replayed are no part of the round's own epochs.
        let per_step = per_step.saturating_sub(replayed);
        let batches = (rows as u64).div_ceil(per_step.max(1));
        if !target.replay.is_empty() {
            values.insert("replay".to_owned(), json!(target.replay));
        }
        let (key, value) = match layers.either(self.document, "steps", "epochs")? {
            Some((key, found)) => {
                self.note(&join(prefix, key), found.node);
                (key, found.node.to_json())
            }
            None => ("epochs", default_epochs),
        };
        let steps = if key == "epochs" {
            self.compute(join(prefix, "steps"), format!("epochs, {rows} {kind}, {per_step} a step"));
            Some(whole(value.as_f64().unwrap_or(1.0) * batches as f64).max(1))
        } else {
            value.as_u64()
        };
        values.insert(key.to_owned(), value);
        let steps = steps.unwrap_or(1);
        values.insert("steps".to_owned(), json!(steps));

        let warmup_steps = match layers.either(self.document, "warmup-steps", "warmup-ratio")? {
            Some(("warmup-steps", found)) => {
                self.note(&join(prefix, "warmup-steps"), found.node);
                found.node.to_json()
            }
            found => {
                let (ratio, origin) = match found {
                    Some((_, found)) => {
                        let origin = self.document.origin(&found.node.source);
                        (found.node.to_json(), origin.to_string())
                    }
                    None => (default_ratio, "default".to_owned()),
                };
                let from = format!("warmup-ratio {ratio} ({origin})");
                self.compute(join(prefix, "warmup-steps"), from);
                Value::from(whole(ratio.as_f64().unwrap_or(0.0) * steps as f64))
            }
        };
        values.insert("warmup-steps".to_owned(), warmup_steps);
        if let Some(stopping) = self.early_stopping(prefix, layers, target)? {
            values.insert("early-stopping".to_owned(), json!(stopping));
        }
        self.check_looks(&values, layers)?;
        self.check_zeroth_order(optimizer, layers)?;
        self.check_learning_rate(optimizer, layers)?;
        self.check_update_in_backward(&values, layers)?;
        Ok(from_table(values))
    }
}

/// Keys that are another optimiser's, and why they do not go with this one.
fn unused(optimizer: OptimizerName) -> &'static [(&'static str, &'static str)] {
    const OF_ANY: &str = "only `mezo` and `subzero` have it";
    const OF_SUBZERO: &str = "only `subzero` has it";
    match optimizer {
        OptimizerName::Adamw => &[
            ("zo-rank", OF_SUBZERO),
            ("zo-refresh", OF_SUBZERO),
            ("zo-eps", OF_ANY),
            ("zo-estimates", OF_ANY),
            ("zo-momentum", OF_ANY),
            ("zo-slopes", OF_ANY),
        ],
        OptimizerName::Mezo => {
            const {
                &[
                    ("zo-rank", OF_SUBZERO),
                    ("zo-refresh", OF_SUBZERO),
                    BETAS,
                    EPS,
                    DECAY,
                    CLIP,
                    RECOMPUTE,
                    IN_BACKWARD,
                    ROUTER,
                ]
            }
        }
        OptimizerName::Subzero => const { &[BETAS, EPS, DECAY, CLIP, RECOMPUTE, IN_BACKWARD, ROUTER] },
    }
}

/// The optimiser that the layers name; the schema admits no other names.
fn optimizer(layers: &Layers<'_>) -> OptimizerName {
    let found = layers.find("optimizer").map(|found| found.node.to_json());
    found.and_then(|name| serde_json::from_value(name).ok()).unwrap_or_default()
}

const BETAS: (&str, &str) = ("adam-betas", "only `adamw` has them");
const EPS: (&str, &str) = ("adam-eps", "only `adamw` has it");
const DECAY: (&str, &str) = ("weight-decay", "only `adamw` has it");
const CLIP: (&str, &str) = ("max-grad-norm", "there is no gradient to clip");
const RECOMPUTE: (&str, &str) = ("recompute", "there is no backward pass to recompute in");
const ROUTER: (&str, &str) = ("router-loss", "it is known to gradients alone");
const IN_BACKWARD: (&str, &str) = ("update-in-backward", "there is no backward pass");

impl Resolver<'_> {
    /// Refuses what has no meaning for an arm's optimiser, where it is written as near to the arm as the optimiser is: what
    /// `[training]` says for others may stand there.
    fn check_zeroth_order(&self, optimizer: OptimizerName, layers: &Layers<'_>) -> Result<(), ConfigError> {
        let refuse = |found: Found, message: String, hint: &str| {
            let hint = Some(hint.to_owned());
            Err(ConfigError::Refused { at: self.document.place(&found.node.source), key: found.key, message, hint })
        };
        let name = json!(optimizer);
        for (key, reason) in unused(optimizer) {
            if let Some(found) = layers.find_as_near(key, "optimizer") {
                return refuse(
                    found,
                    format!("{reason}, and the optimizer is {name}"),
                    "leave it out, or set `optimizer`",
                );
            }
        }
        let (Some(found), Some(lora)) = (layers.find("optimizer"), &self.sections.lora) else { return Ok(()) };
        let saved = lora.modules_to_save.as_ref().is_some_and(|modules| !modules.is_empty());
        if optimizer.is_zeroth_order() && lora.dropout.unwrap_or(0.0) > 0.0 {
            return refuse(
                found,
                format!("{name} compares two losses, which lora.dropout would blur"),
                "set `lora.dropout = 0`",
            );
        }
        if optimizer == OptimizerName::Subzero && (lora.dora.unwrap_or(false) || saved) {
            let message = format!("{name} moves the factors of adapters alone, no magnitudes and no modules in full");
            return refuse(found, message, "use \"mezo\", or leave `dora` and `modules-to-save` out");
        }
        Ok(())
    }

    /// Refuses a learning rate that was written for an optimiser of the other kind, whose rates are of another order.
    fn check_learning_rate(&self, own: OptimizerName, layers: &Layers<'_>) -> Result<(), ConfigError> {
        let (Some(rate), Some(place)) = (layers.find("learning-rate"), layers.from("learning-rate")) else {
            return Ok(());
        };
        let there = optimizer(&place);
        if there.is_zeroth_order() == own.is_zeroth_order() {
            return Ok(());
        }
        let (own, there) = (json!(own), json!(there));
        Err(ConfigError::Refused {
            at: self.document.place(&rate.node.source),
            key: rate.key,
            message: format!("this rate stands where the optimizer is {there}, and one of {own} is of another order"),
            hint: Some(format!("write a `learning-rate` beside `optimizer = {own}`")),
        })
    }

    /// A global norm, adapters on a frozen base, and gradients that may overflow and be computed anew do not go with updates in
    /// the backward pass.
    fn check_update_in_backward(&self, values: &Map<String, Value>, layers: &Layers<'_>) -> Result<(), ConfigError> {
        let Some(found) = layers.find("update-in-backward").filter(|_| values["update-in-backward"] == true) else {
            return Ok(());
        };
        let (message, hint) = match (values["max-grad-norm"].as_f64(), &self.sections.lora) {
            (_, Some(_)) => ("it is for training all weights, but there is a [lora] section", "leave it out"),
            _ if self.sections.model.dtype == Some(Dtype::F16) => (
                "gradients of f16 weights may overflow, and are known to when some of the weights are changed already",
                "set `model.dtype` to `bf16` or `f32`",
            ),
            (Some(0.0), None) => return Ok(()),
            _ => (
                "the global gradient norm, by which max-grad-norm clips, is known after all blocks only",
                "set `max-grad-norm = 0`",
            ),
        };
        Err(ConfigError::Refused {
            at: self.document.place(&found.node.source),
            key: found.key.clone(),
            message: message.to_owned(),
            hint: Some(hint.to_owned()),
        })
    }
}

/// Rounded up, but 30 · 0.1 = 3.0000000000000004 is 3.
fn whole(steps: f64) -> u64 {
    (steps * (1.0 - 1e-12)).ceil() as u64
}
