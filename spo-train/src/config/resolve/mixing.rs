//! `replay`, and how the gradients of several dimensions become one.

use std::collections::BTreeMap;

use super::layers::Found;
use super::rounds::{Arm, Finished};
use super::{Resolver, wrong};
use crate::config::defaults;
use crate::config::document::Node;
use crate::config::plan::{ArmPlan, CombinePlan, DataShape, RoundPlan, TrainingPlan};
use crate::config::spec::Combine;
use crate::config::validate::join;
use crate::error::ConfigError;

impl Resolver<'_> {
    /// The shares of earlier dimensions in an arm's steps; a control has those of its round, unless it has its own.
    pub(super) fn replay(
        &mut self,
        arm: &Arm<'_>,
        main: Option<&Arm<'_>>,
        finished: &[Finished],
    ) -> Result<BTreeMap<String, f64>, ConfigError> {
        let Some(found) = written("replay", arm, main) else { return Ok(BTreeMap::new()) };
        let shares: BTreeMap<String, f64> =
            serde_json::from_value(found.node.to_json()).expect("the schema admits only numbers");
        for (name, share) in &shares {
            let (node, key) = (found.node.get(name).unwrap_or(found.node), join(&found.key, name));
            if !(0.0..1.0).contains(share) {
                return Err(wrong(self.document, node, &key, "a share of each step's pairs, from 0 to below 1".into()));
            }
            let joint = |round: &&Finished| round.dimensions.contains(name);
            let earlier = finished.iter().rev().find(|round| round.dimension == *name);
            let earlier = earlier.or_else(|| finished.iter().rev().find(joint));
            let reason = match earlier {
                None => {
                    let known: Vec<&str> = finished.iter().map(|round| round.dimension.as_str()).collect();
                    let known = if known.is_empty() { "there is no earlier round".into() } else { known.join(", ") };
                    Some(format!(
                        "{name:?} is no dimension of an earlier round, and only those can be replayed ({known})"
                    ))
                }
                Some(round) => {
                    round.unreplayable.map(|reason| format!("the round of {name:?} cannot be replayed: {reason}"))
                }
            };
            if let Some(message) = reason {
                let at = self.document.place(&node.source);
                return Err(ConfigError::Refused { at, key, message, hint: None });
            }
        }
        self.note(&join(&arm.prefix(), "replay"), found.node);
        Ok(shares.into_iter().filter(|(_, share)| *share > 0.0).collect())
    }

    /// Every share must come to a pair, and leave the round one of its own.
    pub(super) fn check_shares(
        &self,
        arm: &Arm<'_>,
        main: Option<&Arm<'_>>,
        training: &TrainingPlan,
    ) -> Result<(), ConfigError> {
        let Some(found) = written("replay", arm, main) else { return Ok(()) };
        let per_step = training.pairs_per_step;
        let refused = |message: String, hint: &str| {
            let at = self.document.place(&found.node.source);
            Err(ConfigError::Refused { at, key: found.key.clone(), message, hint: Some(hint.into()) })
        };
        if let Some((name, _)) = training.replayed_pairs().find(|(_, pairs)| *pairs == 0) {
            let share = training.replay[name];
            let message = format!("{share} of {per_step} pairs a step is less than half a pair of {name:?}");
            return refused(message, "a larger share, or more `pairs-per-step`");
        }
        if training.own_pairs_per_step() == 0 {
            let message = format!("they leave the round none of its {per_step} pairs a step");
            return refused(message, "smaller shares, or more `pairs-per-step`");
        }
        Ok(())
    }

    /// What a round that replays, or that an arm of replays, may not be.
    pub(super) fn check_replay(
        &self,
        (key, node): (&str, &Node),
        arms: &[ArmPlan],
        (online, several): (bool, bool),
    ) -> Result<(), ConfigError> {
        let Some(arm) = arms.iter().find(|arm| !arm.training.replay.is_empty()) else { return Ok(()) };
        let reason = match (online, several) {
            (true, _) => Some("an online round trains on the pairs that it makes"),
            (_, true) => Some("a round that weighs dimensions can have the earlier ones among them"),
            _ => mixing_fault(arm),
        };
        let Some(reason) = reason else { return Ok(()) };
        Err(ConfigError::Refused {
            at: self.document.place(&node.source),
            key: join(key, "replay"),
            message: format!("no pairs can be replayed beside `{}`: {reason}", arm.objective),
            hint: Some("leave `replay` out, or take an objective on single pairs, such as `spo` or `dpo`".into()),
        })
    }

    /// How the gradients of an arm's dimensions become one; `None` where it has one dimension, or draws their weights.
    pub(super) fn combine(
        &mut self,
        arm: &Arm<'_>,
        main: Option<&Arm<'_>>,
        weighs: bool,
        training: &TrainingPlan,
    ) -> Result<Option<CombinePlan>, ConfigError> {
        let (way, c) = (written("combine", arm, main), written("cagrad-c", arm, main));
        let refused = |found: &Found, message: &str, hint: &str| {
            let at = self.document.place(&found.node.source);
            let (key, message) = (found.key.clone(), message.to_owned());
            Err(ConfigError::Refused { at, key, message, hint: Some(hint.to_owned()) })
        };
        if !weighs {
            return match way.or(c) {
                None => Ok(None),
                Some(found) => refused(
                    &found,
                    "there is one gradient: the round has one dimension, or a conditional adapter that draws their weights",
                    "leave it out, or name several dimensions: `dimension = [\"honesty\", \"helpfulness\"]`",
                ),
            };
        }
        let combine: Combine = way.as_ref().map_or_else(Combine::default, |found| {
            serde_json::from_value(found.node.to_json()).expect("the schema admits only its ways")
        });
        let found = way.as_ref().or(c.as_ref());
        if combine == Combine::Sum
            && let Some(found) = &c
        {
            return refused(found, "only `combine = \"cagrad\"` has it", "leave it out, or set `combine`");
        }
        if combine == Combine::Cagrad
            && let Some(found) = found
        {
            if training.router_loss != 0.0 {
                return refused(found, "the loss of the router is no dimension's", "set `router-loss = 0`");
            }
            if training.optimizer.is_zeroth_order() || training.update_in_backward {
                let message = "it needs the whole gradient of each dimension in every step";
                return refused(found, message, "use `optimizer = \"adamw\"` without `update-in-backward`");
            }
        }
        let prefix = arm.prefix();
        for (name, found) in [("combine", &way), ("cagrad-c", &c)] {
            if let Some(found) = found {
                self.note(&join(&prefix, name), found.node);
            }
        }
        let c = c.and_then(|found| found.node.to_json().as_f64()).unwrap_or(defaults::CAGRAD_C);
        Ok(Some(CombinePlan { combine, cagrad_c: (combine == Combine::Cagrad).then_some(c) }))
    }
}

/// A key of an arm, or of its round.
fn written<'n>(key: &str, arm: &Arm<'n>, main: Option<&Arm<'n>>) -> Option<Found<'n>> {
    let of = |arm: &Arm<'n>| Some(Found { node: arm.node.get(key)?, key: join(&arm.key, key) });
    of(arm).or_else(|| of(main?))
}

/// Why the pairs of a round's main arm cannot stand beside others.
pub(super) fn unreplayable(round: &RoundPlan) -> Option<&'static str> {
    match round.online {
        Some(_) => Some("it made its pairs on the way"),
        None if !round.front.is_empty() => Some("it weighs several dimensions"),
        None => mixing_fault(round.main()),
    }
}

/// Why the loss of an arm cannot stand beside another one in a step.
fn mixing_fault(arm: &ArmPlan) -> Option<&'static str> {
    if arm.data != DataShape::Pairs || arm.gives_rewards() {
        return Some("its rows are no pairs for a policy");
    }
    let objective = arm.objectives.build(&arm.objective, &arm.options).ok()?;
    let needs = objective.needs();
    if needs.whole_batch {
        Some("its loss compares all pairs of a batch")
    } else if needs.sequence_kl || needs.sampled {
        Some("its loss looks at more than the log-probs of both answers")
    } else if objective.degrees().is_some() {
        Some("its loss takes preference degrees")
    } else {
        None
    }
}
