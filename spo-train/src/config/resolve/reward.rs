//! Rounds that make a reward model.

use super::Resolver;
use crate::config::plan::{ArmPlan, RoundPlan};
use crate::error::ConfigError;

impl Resolver<'_> {
    /// A reward model writes no text and has no reference: a run that makes one has a single round, all of whose arms make
    /// one, no warm-up and no KL budget.
    pub(super) fn check_reward_rounds(&self, rounds: &[RoundPlan]) -> Result<(), ConfigError> {
        let of_rewards = |round: &RoundPlan| round.arms.iter().any(ArmPlan::gives_rewards);
        let Some(index) = rounds.iter().position(of_rewards) else { return Ok(()) };
        let warm_up = self.document.root.get("warmup").is_some();
        let Some((message, hint)) = reward_fault(rounds, index, warm_up) else { return Ok(()) };
        let node = self.document.root.get("rounds").and_then(|rounds| rounds.items().get(index));
        let at = self.document.place(&node.unwrap_or(&self.document.root).source);
        Err(ConfigError::Refused {
            at,
            key: format!("rounds.{index}"),
            message: message.into(),
            hint: Some(hint.into()),
        })
    }
}

/// What a run may not have beside the round of this index, which makes a reward model, and what to do about it.
fn reward_fault(rounds: &[RoundPlan], index: usize, warm_up: bool) -> Option<(&'static str, &'static str)> {
    let arms = &rounds[index].arms;
    let critique = |arm: &ArmPlan| {
        let built = arm.objectives.build_reward(&arm.objective, &arm.options).ok();
        built.and_then(|objective| objective.critique()).map(|critique| critique.max_tokens)
    };
    let faults = [
        (
            rounds[index].online.is_some(),
            "a reward model writes no answers, and so makes no pairs of its own (`online`)",
            "take `online` out; the reward model can be the scorer of online rounds",
        ),
        (
            rounds.len() > 1,
            "a round with objective `reward` is the only round of its run: it ends as a reward model, which no other round \
             can start from",
            "train each reward model in a run of its own, from the same starting model",
        ),
        (
            arms.iter().any(|arm| !arm.gives_rewards()),
            "the arms of a round are compared by their rewards: all of them or none have the objective `reward`",
            "give the control the objective `reward` with other settings",
        ),
        (
            arms.iter().any(|arm| critique(arm) != critique(&arms[0])),
            "all arms of a round read their rewards behind a critique of the same length, or none does",
            "compare it in a run of its own",
        ),
        (
            warm_up,
            "a run with objective `reward` has no warm-up",
            "fine-tune the model in a run before, and start from its `model/`",
        ),
        (
            arms.iter().any(|arm| arm.training.max_kl > 0.0),
            "a reward model has no distance from a reference in nats, and so no `max-kl`",
            "take `max-kl` out",
        ),
    ];
    faults.into_iter().find(|(found, ..)| *found).map(|(_, message, hint)| (message, hint))
}
