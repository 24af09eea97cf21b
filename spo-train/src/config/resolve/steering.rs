//! `[steering]`: its values, and what a run with it may not have beside it.

use super::rounds::Arm;
use super::{Resolver, wrong};
use crate::config::plan::{ArmPlan, DataShape, RoundPlan, SteeringPlan};
use crate::config::spec::{LoraCondition, LoraRounds, LoraSpec, OptimizerName, QuantisedBase};
use crate::config::validate::join;
use crate::error::ConfigError;

/// What cannot be beside `[steering]`, and what to do about it.
type Fault = (&'static str, String, &'static str);

impl Resolver<'_> {
    pub(super) fn steering(&mut self) -> Result<Option<SteeringPlan>, ConfigError> {
        if self.root("steering").is_none() {
            return Ok(None);
        }
        let mut plan: SteeringPlan = self.section("steering");
        let (document, section) = (self.document, self.document.root.get("steering").expect("it is there"));
        let refused = |key: &str, expected: String| {
            let node = section.get(key).unwrap_or(section);
            Err(wrong(document, node, &format!("steering.{key}"), expected))
        };
        if !plan.width.is_multiple_of(plan.heads) {
            let expected = format!("a number that divides the width of {}", plan.width);
            return refused("heads", expected);
        }
        let known = self.facts.dimensions();
        match (&plan.column, section.get("users")) {
            (Some(_), Some(users)) => {
                return Err(ConfigError::Exclusive {
                    at: self.document.place(&users.source),
                    key: "steering.users".into(),
                    other: "steering.column".into(),
                });
            }
            (Some(_), None) => {}
            (None, None) => {
                plan.users =
                    known.iter().map(|(name, _)| name.clone()).filter(|name| self.facts.rows(name).pairs > 0).collect();
                self.compute("steering.users", "the training data's dimensions");
            }
            (None, Some(node)) => {
                if let Some(user) = plan.users.iter().find(|user| self.facts.rows(user).pairs == 0) {
                    let (at, key) = (self.document.place(&node.source), "steering.users".to_owned());
                    return Err(ConfigError::UnknownDimension { at, key, found: user.clone(), known });
                }
            }
        }
        if let Some(twice) = plan.users.iter().enumerate().find(|(index, user)| plan.users[..*index].contains(user)) {
            return refused("users", format!("each user once: {:?} stands there twice", twice.1));
        }
        if plan.column.is_none() && plan.users.len() < 2 {
            let names = plan.users.join(", ");
            return Err(self.steering_refused((
                "steering",
                format!("there is one user ({names}), and nothing to tell apart"),
                "label rows along two dimensions or more, or name the field of the rows that says whose they are: `column`",
            )));
        }
        Ok(Some(plan))
    }

    /// Most contexts of a user that an arm sets for itself.
    pub(super) fn contexts(&mut self, arm: &Arm<'_>) -> Result<Option<usize>, ConfigError> {
        let Some(node) = arm.node.get("contexts") else { return Ok(None) };
        if self.root("steering").is_none() {
            return Err(ConfigError::Refused {
                at: self.document.place(&node.source),
                key: join(&arm.key, "contexts"),
                message: "the run has no users whose pairs they would be".to_owned(),
                hint: Some("leave it out, or add a section [steering]".to_owned()),
            });
        }
        self.note(&join(&arm.prefix(), "contexts"), node);
        Ok(serde_json::from_value(node.to_json()).expect("the schema admits only whole numbers"))
    }

    /// Pairs that a round of a steered run learns.
    pub(super) fn pairs_of_users(&self, steering: &SteeringPlan) -> Option<usize> {
        let pairs = |user: &String| self.facts.rows(user).pairs;
        (!steering.users.is_empty()).then(|| steering.users.iter().map(pairs).sum())
    }

    /// Refuses what does not go with `[steering]`.
    pub(super) fn check_steering(&self, plan: Option<&SteeringPlan>, rounds: &[RoundPlan]) -> Result<(), ConfigError> {
        let lora = self.sections.lora.as_ref();
        let by_contexts = lora.is_some_and(|lora| lora.condition == Some(LoraCondition::Contexts));
        let Some(plan) = plan else {
            let message = || "the run has no users whose contexts they would be".to_owned();
            let fault = by_contexts.then(|| ("lora.condition", message(), "add a section [steering], or take it out"));
            return fault.map_or(Ok(()), |fault| Err(self.steering_refused(fault)));
        };
        let acts = plan.films || by_contexts;
        let fault = (!acts).then(|| {
            let hint = "set `[lora] condition = \"contexts\"`, or leave `films` out";
            ("steering.films", "without films nothing in the run goes by z".to_owned(), hint)
        });
        let fault = fault.or_else(|| adapters_fault(lora)).or_else(|| rounds_fault(plan, rounds));
        let fault = fault.or_else(|| rounds.iter().flat_map(|round| &round.arms).find_map(arm_fault));
        let rewards = rounds.iter().any(|round| round.main().gives_rewards());
        let fault = fault.or_else(|| {
            (rewards && by_contexts).then(|| {
                let message =
                    "the files of a conditional adapter hold no score head, which a reward model has".to_owned();
                ("lora.condition", message, "take `condition` out: films steer a reward model")
            })
        });
        fault.map_or(Ok(()), |fault| Err(self.steering_refused(fault)))
    }

    fn steering_refused(&self, (key, message, hint): Fault) -> ConfigError {
        let root = &self.document.root;
        let node = key.split('.').try_fold(root, |node, name| node.get(name)).or_else(|| root.get("steering"));
        let at = self.document.place(&node.unwrap_or(root).source);
        ConfigError::Refused { at, key: key.into(), message, hint: Some(hint.into()) }
    }
}

fn adapters_fault(lora: Option<&LoraSpec>) -> Option<Fault> {
    let Some(lora) = lora else {
        let message = "what steers a policy is trained beside adapters, and the run has none".to_owned();
        return Some(("steering", message, "add a section [lora]"));
    };
    if lora.start.is_some() {
        let message = "pairs are embedded by the model of [model] alone".to_owned();
        return Some(("lora.start", message, "merge the adapter (`spo export`), and start from that model"));
    }
    if lora.condition == Some(LoraCondition::Weights) {
        let message = "a policy goes by weights or by contexts, not both".to_owned();
        return Some(("lora.condition", message, "set `condition = \"contexts\"`, or take it out, or [steering]"));
    }
    if lora.condition == Some(LoraCondition::Contexts) {
        if lora.dora == Some(true) || lora.modules_to_save.as_ref().is_some_and(|modules| !modules.is_empty()) {
            let message =
                "a conditional adapter has neither magnitudes nor modules that are trained in full".to_owned();
            return Some(("lora", message, "leave `dora` and `modules-to-save` out"));
        }
        if lora.rounds == Some(LoraRounds::Stack) {
            let message = "a conditional adapter is trained further, and none is stacked on it".to_owned();
            return Some(("lora.rounds", message, "leave `rounds` out"));
        }
    }
    let quantised = lora.quantised_base.is_some_and(|base| base != QuantisedBase::None);
    let message = || "pairs are embedded by the weights of the model's file, wherever the policy is used".to_owned();
    quantised.then(|| ("lora.quantised-base", message(), "take it out"))
}

fn rounds_fault(plan: &SteeringPlan, rounds: &[RoundPlan]) -> Option<Fault> {
    if rounds.len() > 1 {
        let message = format!("found {} rounds, expected one, which learns the pairs of all users", rounds.len());
        return Some(("rounds", message, "keep one round, and compare others as its controls or in runs of their own"));
    }
    let round = rounds.first()?;
    if round.online.is_some() {
        let message = "an online round makes pairs of one scorer, and knows no users".to_owned();
        return Some(("rounds", message, "take `online` out"));
    }
    if !round.front.is_empty() {
        let message = "a round that weighs several dimensions knows no users".to_owned();
        return Some(("rounds", message, "name one dimension: a round with [steering] learns the pairs of all users"));
    }
    let named = plan.users.is_empty() || plan.users.contains(&round.dimension);
    let message = || {
        format!("the round's dimension is {:?}, expected one of the users: {}", round.dimension, plan.users.join(", "))
    };
    (!named).then(|| ("rounds", message(), "its pairs are those of all users, whichever is named"))
}

fn objective_fault(arm: &ArmPlan) -> Option<Fault> {
    let (objectives, name, options) = (&arm.objectives, arm.objective.as_str(), &arm.options);
    let compares = match arm.data {
        DataShape::Pairs if arm.gives_rewards() => {
            let objective = objectives.build_reward(name, options).ok()?;
            objective.needs_strengths() || objective.takes_ties() || objective.critique().is_some()
        }
        DataShape::Pairs => {
            let objective = objectives.build(name, options).ok()?;
            let needs = objective.needs();
            needs.whole_batch || needs.strengths || objective.degrees().is_some()
        }
        _ => {
            let message = format!("`{name}` does not learn from pairs, which contexts are made of");
            return Some(("rounds", message, "an objective on pairs, such as `dpo`"));
        }
    };
    compares.then(|| {
        let message = format!(
            "`{name}` looks at a batch's other pairs, at scores, ties, degrees or critiques, and here pairs are of several users"
        );
        ("rounds", message, "an objective that is a sum over pairs, such as `dpo`, or `reward` with its defaults")
    })
}

fn arm_fault(arm: &ArmPlan) -> Option<Fault> {
    if let Some(fault) = objective_fault(arm) {
        return Some(fault);
    }
    let training = &arm.training;
    if training.optimizer != OptimizerName::Adamw {
        let message = "an estimate by losses alone was never shown to reach what steers a policy".to_owned();
        return Some(("training.optimizer", message, "take `optimizer` out: adamw"));
    }
    let message = || "a running policy has no accuracy of its own, only one for each user".to_owned();
    (training.eval_every > 0).then(|| {
        (
            "training.eval-every",
            message(),
            "take it out: the round's policy is measured at every number of `steering.evaluate`",
        )
    })
}
