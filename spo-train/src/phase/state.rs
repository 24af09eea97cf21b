//! What a phase has come to between two of its steps: what a checkpoint holds.

use crate::persist::float;
use crate::phase::hold::HoldState;
use crate::phase::pace::Work;
use crate::step::optimizer::Optimizer;
use serde::{Deserialize, Serialize};
use spo_model::CausalLm;
use std::cmp::Ordering;
use std::time::Duration;

/// What a phase has come to after some of its steps.
#[derive(Debug)]
pub struct PhaseState {
    /// The policy.
    pub model: CausalLm,
    /// What changes it, and remembers from step to step.
    pub optimizer: Box<dyn Optimizer>,
    /// Steps done.
    pub step: u64,
    /// Tokens run through the model.
    pub tokens: u64,
    /// Time taken.
    pub time: Duration,
    /// What this process has done of it, since it was started.
    pub own: Work,
    /// The step after which the running policy was evaluated last; 0: never.
    pub evaluated: u64,
    /// The best held-out value so far, where the best checkpoint is kept.
    pub best: Option<f64>,
    /// What the evaluations of the running policy found, where they may end the phase.
    pub evaluations: Evaluations,
    /// λ, where it follows bounds.
    pub hold: Option<HoldState>,
    /// Whether the policy is an earlier one, because the last one misses the round's gate.
    pub rolled_back: bool,
}

impl PhaseState {
    /// A phase that starts from a model, with an optimiser before its first step.
    pub fn new(model: CausalLm, optimizer: Box<dyn Optimizer>) -> Self {
        Self {
            model,
            optimizer,
            step: 0,
            tokens: 0,
            time: Duration::ZERO,
            own: Work::default(),
            evaluated: 0,
            best: None,
            evaluations: Evaluations::default(),
            hold: None,
            rolled_back: false,
        }
    }

    /// The policy as it is now, to be scored or saved; a conditional one at equal weights.
    pub fn policy(&mut self) -> CausalLm {
        self.optimizer.policy(&self.model).at_equal_weights()
    }
}

/// A policy at one evaluation, comparable: within the KL budget, how far from the round's gate, how good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Evaluation {
    pub(super) step: u64,
    #[serde(deserialize_with = "float::one")]
    pub(super) gap: f64,
    #[serde(deserialize_with = "float::option")]
    pub(super) value: Option<f64>,
}

impl Evaluation {
    /// Whether this later evaluation is of a better policy.
    pub(super) fn beats(&self, other: &Self) -> bool {
        let value = |of: &Self| of.value.unwrap_or(of.step as f64);
        let order = other.gap.total_cmp(&self.gap).then(value(self).total_cmp(&value(other)));
        order == Ordering::Greater
    }
}

/// The evaluations of a phase so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluations {
    pub(super) best: Option<Evaluation>,
    /// Best value of the early-stopping metric, and evaluations since then.
    #[serde(deserialize_with = "float::option")]
    pub(super) best_value: Option<f64>,
    pub(super) since: usize,
    /// The last evaluations in a row at which the policy passed the round's gate, where that may end it.
    #[serde(default)]
    pub(super) passed: u64,
    /// Why the phase ends, once it does.
    pub(super) reason: Option<String>,
}

impl Evaluations {
    /// The step of the policy that is kept, if one is.
    pub fn kept(&self) -> Option<u64> {
        self.best.as_ref().map(|best| best.step)
    }

    /// Whether they end the phase.
    pub fn end(&self) -> bool {
        self.reason.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::Evaluation;

    #[test]
    fn evaluations_are_compared_by_gate_then_metric_then_step() {
        let of = |step, gap, value| Evaluation { step, gap, value };
        assert!(of(2, 0.0, Some(0.1)).beats(&of(1, 0.1, Some(0.9))));
        assert!(of(2, 0.0, Some(0.9)).beats(&of(1, 0.0, Some(0.1))));
        assert!(!of(2, 0.0, Some(0.9)).beats(&of(1, 0.0, Some(0.9))), "the first of equals stays");
        assert!(of(2, 0.0, None).beats(&of(1, 0.0, None)));
        assert!(!of(2, 0.2, None).beats(&of(1, 0.1, None)));
    }
}
