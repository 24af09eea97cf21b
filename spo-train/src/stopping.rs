//! What ends a phase before its steps are done: early stopping, a KL budget; and which of its policies it goes on with.
//!
//! What is decided follows from the looks at the phase so far ([`Looks`]), which its checkpoints hold; the best policy
//! so far lies on disk.

use crate::TrainError;
use crate::bits;
use crate::config::spec::StoppingMetric;
use crate::config::{EvaluationPlan, TrainingPlan};
use crate::event::{Event, HeldOut};
use crate::gate::Gate;
use crate::held_out::LabelledSet;
use crate::phase::PhaseState;
use crate::policy::Policies;
use crate::sampling::Drawn;
use crate::session::Session;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// A policy at one look, comparable: within the KL budget, how far from the round's gate, how good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Look {
    step: u64,
    #[serde(with = "bits")]
    gap: f64,
    #[serde(with = "bits::option")]
    value: Option<f64>,
}

impl Look {
    /// Whether this later look is at a better policy.
    fn beats(&self, other: &Self) -> bool {
        let value = |look: &Self| look.value.unwrap_or(look.step as f64);
        let order = other.gap.total_cmp(&self.gap).then(value(self).total_cmp(&value(other)));
        order == Ordering::Greater
    }
}

/// The looks of a phase so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Looks {
    best: Option<Look>,
    /// Best value of the early-stopping metric, and looks since then.
    #[serde(with = "bits::option")]
    best_value: Option<f64>,
    since: usize,
    /// Why the phase ends, once it does.
    reason: Option<String>,
}

/// Stops a phase, or does not.
pub struct Stopping<'a> {
    keeper: Option<Keeper<'a>>,
    /// Whether what the looks find may end the phase or send it back.
    acts: bool,
}

/// What is needed to measure a running policy and to keep it.
pub struct Keeper<'a> {
    /// Where policies are kept.
    pub policies: &'a mut Policies,
    /// Name of the phase.
    pub phase: &'a str,
    /// Its settings.
    pub training: &'a TrainingPlan,
    /// The policy it starts from.
    pub parent: &'a str,
    /// What the round's policy must reach, where a miss rolls it back.
    pub gate: Option<&'a Gate<'a>>,
    /// Held-out pairs.
    pub held_out: &'a LabelledSet,
    /// How responses are sampled.
    pub evaluation: &'a EvaluationPlan,
    /// Tokens that end a response.
    pub stop: &'a [u32],
    /// Seed of the run.
    pub seed: u64,
    /// Tokens scored at once.
    pub token_budget: usize,
}

impl<'a> Stopping<'a> {
    /// A phase that takes all its steps.
    pub fn never() -> Self {
        Self { keeper: None, acts: false }
    }

    /// A phase that ends by its plan and its round's gate.
    pub fn new(keeper: Keeper<'a>) -> Self {
        let training = keeper.training;
        let acts = training.early_stopping.is_some() || training.max_kl > 0.0 || keeper.gate.is_some();
        Self { keeper: Some(keeper), acts }
    }

    /// Looks at the running policy; [`Looks::end`] says whether the phase ends here.
    ///
    /// # Errors
    /// The policy cannot be kept, its starting policy cannot be read, or the user's interruption.
    pub fn look(&mut self, state: &mut PhaseState, found: &HeldOut, session: &mut Session) -> Result<(), TrainError> {
        let Some(keeper) = self.keeper.as_mut().filter(|_| self.acts) else { return Ok(()) };
        let kl = if keeper.training.max_kl > 0.0 { Some(keeper.kl(state, session)?) } else { None };
        if state.looks.take(keeper, found, kl) {
            keeper.policies.keep(keeper.phase, state.step, &state.model)?;
        }
        Ok(())
    }

    /// Keeps the running policy as the best of its phase so far.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_best(&self, state: &PhaseState) -> Result<(), TrainError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        keeper.policies.keep_best(keeper.phase, &state.model)
    }

    /// Removes the kept policies that the checkpoint which was just written does not need.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn settle(&self, state: &PhaseState) -> Result<(), TrainError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        keeper.policies.forget_kept(keeper.phase, state.looks.kept())
    }

    /// The policy that the phase goes on with.
    ///
    /// # Errors
    /// The kept policy cannot be read.
    pub fn finish(self, mut state: PhaseState, steps: u64, session: &mut Session) -> Result<PhaseState, TrainError> {
        let Some(keeper) = self.keeper else { return Ok(state) };
        let Looks { best, reason, .. } = state.looks.clone();
        let missed = |best: &Look| keeper.gate.is_some() && best.gap == 0.0 && best.step < state.step;
        // A round that ran to its end goes back only if that helps it through its gate.
        state.rolled_back = reason.is_none() && best.as_ref().is_some_and(missed);
        let rolled_back = || "its last policy misses its gate, and an earlier one passes it".to_owned();
        if let Some(reason) = reason.or_else(|| state.rolled_back.then(rolled_back)) {
            let policy_of = best.as_ref().map_or(0, |best| best.step);
            if policy_of != state.step {
                state.model = match &best {
                    Some(best) => keeper.policies.kept(keeper.phase, best.step)?,
                    None => keeper.policies.load(keeper.parent)?,
                };
            }
            let (phase, step) = (keeper.phase.to_owned(), state.step);
            session.emit(Event::PhaseEnded { phase, step, steps, policy_of, reason })?;
            state.step = policy_of;
        }
        Ok(state)
    }
}

impl Looks {
    /// The step of the policy that is kept, if one is.
    pub fn kept(&self) -> Option<u64> {
        self.best.as_ref().map(|best| best.step)
    }

    /// Whether they end the phase.
    pub fn end(&self) -> bool {
        self.reason.is_some()
    }

    /// Takes a look; true if it is the best so far.
    fn take(&mut self, keeper: &Keeper, found: &HeldOut, kl: Option<f64>) -> bool {
        let budget = keeper.training.max_kl;
        if let Some(kl) = kl.filter(|kl| *kl > budget) {
            self.reason =
                Some(format!("its KL to {} is {kl:.2} nats per response, above max-kl = {budget}", keeper.parent));
            return false;
        }
        let value = keeper.training.early_stopping.as_ref().map(|stopping| {
            let dimension = || found.dimensions.iter().find(|of| Some(&of.dimension) == stopping.dimension.as_ref());
            let value = match stopping.metric {
                StoppingMetric::Loss => Some(-found.loss),
                StoppingMetric::Accuracy => dimension().map(|of| of.accuracy),
                StoppingMetric::Margin => dimension().map(|of| of.margin),
            };
            let value = value.expect("resolve admits only dimensions of the run");
            let better = self.best_value.is_none_or(|best| value > best);
            (self.best_value, self.since) = if better { (Some(value), 0) } else { (self.best_value, self.since + 1) };
            if self.since >= stopping.patience {
                let what = match (stopping.metric, &stopping.dimension) {
                    (StoppingMetric::Loss, _) => "held-out loss".to_owned(),
                    (StoppingMetric::Accuracy, name) => format!("accuracy on {}", name.as_deref().unwrap_or_default()),
                    (StoppingMetric::Margin, name) => format!("margin on {}", name.as_deref().unwrap_or_default()),
                };
                self.reason = Some(format!("its {what} did not get better at {} looks in a row", self.since));
            }
            value
        });
        let gap = keeper.gate.as_ref().map_or(0.0, |gate| gate.gap(found));
        let look = Look { step: found.step, gap, value };
        let best = self.best.as_ref().is_none_or(|best| look.beats(best));
        if best {
            self.best = Some(look);
        }
        best
    }
}

impl Keeper<'_> {
    /// Sampled KL of the running policy to the one the phase started from.
    fn kl(&mut self, state: &PhaseState, session: &mut Session) -> Result<f64, TrainError> {
        let drawn = Drawn::draw(
            self.phase,
            &state.model,
            self.held_out,
            self.evaluation,
            self.stop,
            self.seed,
            self.token_budget,
            session,
        )?;
        let parent = self.policies.load(self.parent)?;
        let estimate = drawn.kl(self.parent, &parent, self.token_budget)?;
        let kl = estimate.mean;
        session.emit(Event::RunningKl { phase: self.phase.into(), step: state.step, estimate })?;
        Ok(kl)
    }
}

#[cfg(test)]
mod tests {
    use super::Look;

    #[test]
    fn looks_are_compared_by_gate_then_metric_then_step() {
        let look = |step, gap, value| Look { step, gap, value };
        assert!(look(2, 0.0, Some(0.1)).beats(&look(1, 0.1, Some(0.9))));
        assert!(look(2, 0.0, Some(0.9)).beats(&look(1, 0.0, Some(0.1))));
        assert!(!look(2, 0.0, Some(0.9)).beats(&look(1, 0.0, Some(0.9))), "the first of equals stays");
        assert!(look(2, 0.0, None).beats(&look(1, 0.0, None)));
        assert!(!look(2, 0.2, None).beats(&look(1, 0.1, None)));
    }
}
