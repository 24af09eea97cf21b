//! What ends a phase before its steps are done: early stopping, a KL budget; and which of its policies it goes on with.
//!
//! What is decided follows from the evaluations of the phase so far ([`Evaluations`]), which its checkpoints hold; the best policy
//! so far lies on disk.

use crate::TrainError;
use crate::config::spec::StoppingMetric;
use crate::config::{EvaluationPlan, TrainingPlan};
use crate::evaluate::labelled_set::LabelledSet;
use crate::events::reporter::Reporter;
use crate::events::{Event, HeldOut};
use crate::phase::gate::Gate;
use crate::phase::state::{Evaluation, Evaluations, PhaseState};
use crate::policy::Policies;
use crate::policy::sampling::SampledResponses;

/// Stops a phase, or does not.
pub struct Stopping<'a> {
    keeper: Option<Keeper<'a>>,
    /// Whether what the evaluations find may end the phase or send it back.
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
    /// π_0, where the path over the divergence from it is wanted.
    pub path_from: Option<&'a str>,
    /// What the round's policy must reach, where a miss rolls it back or a pass ends it.
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

    /// Takes an evaluation of the running policy; [`Evaluations::end`] says whether the phase ends here.
    ///
    /// # Errors
    /// The policy cannot be kept, its starting policy cannot be read, or the user's interruption.
    pub fn evaluated(
        &mut self,
        state: &mut PhaseState,
        found: &HeldOut,
        reporter: &mut Reporter,
    ) -> Result<(), TrainError> {
        let Some(keeper) = self.keeper.as_mut() else { return Ok(()) };
        let kl = keeper.kl(state, reporter)?;
        if !self.acts {
            return Ok(());
        }
        if state.evaluations.take(keeper, found, kl) {
            let model = state.policy();
            keeper.policies.keep(keeper.phase, state.step, &model)?;
        }
        Ok(())
    }

    /// Keeps the running policy as the best of its phase so far.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_best(&self, state: &mut PhaseState) -> Result<(), TrainError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        keeper.policies.keep_best(keeper.phase, &state.policy())
    }

    /// Removes the kept policies that the checkpoint which was just written does not need.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn settle(&self, state: &PhaseState) -> Result<(), TrainError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        keeper.policies.forget_kept(keeper.phase, state.evaluations.kept())
    }

    /// The policy that the phase goes on with.
    ///
    /// # Errors
    /// The kept policy cannot be read.
    pub fn finish(self, mut state: PhaseState, steps: u64, reporter: &mut Reporter) -> Result<PhaseState, TrainError> {
        let Some(keeper) = self.keeper else { return Ok(state) };
        let Evaluations { best, reason, .. } = state.evaluations.clone();
        let rolls_back = keeper.gate.is_some_and(Gate::rolls_back);
        let missed = |best: &Evaluation| rolls_back && best.gap == 0.0 && best.step < state.step;
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
            reporter.emit(Event::PhaseEnded { phase, step, steps, policy_of, reason })?;
            state.step = policy_of;
        }
        Ok(state)
    }
}

impl Evaluations {
    /// Takes an evaluation; true if it is the best so far.
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
                self.reason = Some(format!("its {what} did not get better at {} evaluations in a row", self.since));
            }
            value
        });
        let gap = keeper.gate.map_or(0.0, |gate| gate.gap(found));
        if self.admits(keeper.gate, gap) {
            self.best = Some(Evaluation { step: found.step, gap, value });
            return true;
        }
        let gap = if keeper.gate.is_some_and(Gate::rolls_back) { gap } else { 0.0 };
        let evaluation = Evaluation { step: found.step, gap, value };
        let best = self.best.as_ref().is_none_or(|best| evaluation.beats(best));
        if best {
            self.best = Some(evaluation);
        }
        best
    }
}

impl Evaluations {
    /// Whether the round's gate was passed often enough in a row to end the round with the running policy.
    fn admits(&mut self, gate: Option<&Gate>, gap: f64) -> bool {
        let Some(after) = gate.and_then(Gate::admits_after) else { return false };
        self.passed = if gap == 0.0 { self.passed + 1 } else { 0 };
        if self.passed < after || self.reason.is_some() {
            return false;
        }
        let what = if after == 1 { "an evaluation".to_owned() } else { format!("{after} evaluations in a row") };
        self.reason = Some(format!("it passes its gate at {what}: what comes next is admitted"));
        true
    }
}

impl Keeper<'_> {
    /// KL of the running policy to the one the phase started from, where that has a budget; and to π_0 for its path.
    fn kl(&mut self, state: &mut PhaseState, reporter: &mut Reporter) -> Result<Option<f64>, TrainError> {
        let budgeted = Some(self.parent).filter(|_| self.training.max_kl > 0.0);
        let path = self.path_from.filter(|start| Some(*start) != budgeted);
        if budgeted.is_none() && path.is_none() {
            return Ok(None);
        }
        let model = state.policy();
        let sampled = SampledResponses::sample(
            self.phase,
            &model,
            &self.held_out.dataset,
            self.evaluation,
            self.stop,
            self.seed,
            self.token_budget,
            reporter,
        )?;
        let said = sampled.predictions(&reporter.team, &model, self.token_budget);
        let mut found = None;
        for reference in budgeted.into_iter().chain(path) {
            let other = self.policies.load(reference)?;
            let estimate = sampled.kl(&reporter.team, &said, (reference, &other), self.token_budget)?;
            found = found.or_else(|| budgeted.map(|_| estimate.mean));
            reporter.emit(Event::RunningKl { phase: self.phase.into(), step: state.step, estimate })?;
        }
        Ok(found)
    }
}
