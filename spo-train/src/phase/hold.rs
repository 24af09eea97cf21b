//! λ that follows bounds while a phase is trained: dual ascent on pairs that nothing else uses, or on the policy's own answers.

use crate::TrainError;
use crate::config::{HeldPlan, HoldPlan};
use crate::evaluate::held_out_loss::{HeldOutMargins, row_margins};
use crate::evaluate::own_rewards::OwnRewards;
use crate::events::reporter::Reporter;
use crate::events::{Event, Held, HeldDimension};
use crate::phase::{Phase, PhaseState};
use crate::task::Task;
use serde::{Deserialize, Serialize};
use spo_core::dual::{Dual, start_value};

/// The bounds of a phase, with what drives λ.
#[derive(Debug)]
pub struct Hold<'a> {
    plan: &'a HoldPlan,
    driving: Driving<'a>,
    /// λ of each earlier round where it is fixed, and its dimensions.
    rounds: Vec<(f64, &'a [String])>,
    start: Vec<f64>,
}

/// What drives λ.
#[derive(Debug)]
pub enum Driving<'a> {
    /// Pairs of each held dimension that nothing else uses, with their log-probs under `π_0`, and what is bounded on them
    /// before the phase.
    Pairs(Vec<(HeldOutMargins<'a>, Before)>),
    /// What the running policy writes itself.
    Samples(OwnRewards<'a>),
}

/// λ of a round whose reward is of these dimensions, given that of each held one: a round that weighs several held ones has
/// their sum. `None`: it has none of the held ones.
pub fn of_round(dimensions: &[String], held: &[(&str, f64)]) -> Option<f64> {
    let own = held.iter().filter(|(name, _)| dimensions.iter().any(|dimension| dimension == name));
    own.map(|(_, lambda)| *lambda).reduce(|sum, lambda| sum + lambda)
}

/// What is bounded, under the policy that the phase starts from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Before {
    mean: f64,
    /// Standard deviation over the pairs or answers: the unit of a violation.
    deviation: f64,
}

/// Where the multipliers are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HoldState {
    dual: Dual,
    /// The step after which λ was moved last.
    updated: u64,
    /// Sum of λ over the updates since half of the phase's steps.
    sum: Vec<f64>,
    updates: u64,
    /// What the last event said.
    told: Vec<HeldDimension>,
    /// What was bounded before the phase, where that was measured on samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    before: Vec<Before>,
}

impl HoldState {
    /// The held dimensions when λ was moved last.
    pub fn told(&self) -> &[HeldDimension] {
        &self.told
    }

    /// Mean λ of each dimension over the second half of the phase: what the ascent settled at. Before that λ itself.
    fn mean(&self) -> Vec<f64> {
        match self.updates {
            0 => self.dual.lambda().to_vec(),
            updates => self.sum.iter().map(|sum| sum / updates as f64).collect(),
        }
    }
}

impl Before {
    /// Of the values of pairs or answers whose mean is bounded.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        // Where all are alike a violation has no other unit than its own.
        Self { mean, deviation: if variance > 0.0 { variance.sqrt() } else { 1.0 } }
    }

    /// The bound after a share of the phase's steps: what may be lost is given out evenly over the share `spend`.
    fn bound(&self, plan: &HeldPlan, done: f64, spend: f64) -> f64 {
        let floor = plan.bound().floor(self.mean);
        let left = if spend > 0.0 { (1.0 - done / spend).max(0.0) } else { 0.0 };
        floor + left * (self.mean - floor).max(0.0)
    }
}

impl<'a> Hold<'a> {
    /// The bounds of a phase. `rounds` are the earlier rounds' fixed λ and their dimensions, `visited` the rows that the phase
    /// learns: the start value follows from `Δr̂` on them. The task has it from here on.
    ///
    /// # Errors
    /// The objective lacks an input.
    pub fn new(
        plan: &'a HoldPlan,
        driving: Driving<'a>,
        rounds: Vec<(f64, &'a [String])>,
        task: &dyn Task,
        visited: &[usize],
    ) -> Result<Self, TrainError> {
        let mut hold = Self { plan, driving, rounds, start: vec![] };
        let offset = |lambda: &[f64]| {
            task.hold(lambda);
            Ok::<_, TrainError>(task.margin_offset(visited)?.unwrap_or_else(|| vec![0.0; visited.len()]))
        };
        let fixed = offset(&hold.lambda(&vec![0.0; plan.dimensions.len()]))?;
        let mut rewards = vec![];
        for name in plan.dimensions.keys() {
            let only = hold.rounds.iter().map(|(_, of)| f64::from(u8::from(of.contains(name))));
            rewards.push(offset(&only.collect::<Vec<f64>>())?);
        }
        hold.start = start_value(&rewards, &fixed).into_iter().map(|value| value.min(plan.max_lambda)).collect();
        task.hold(&hold.lambda(&hold.start));
        Ok(hold)
    }

    /// λ of each earlier round: of the held dimensions these, of the others as they are given.
    fn lambda(&self, held: &[f64]) -> Vec<f64> {
        let names = self.plan.dimensions.keys().map(String::as_str);
        let held: Vec<(&str, f64)> = names.zip(held.iter().copied()).collect();
        self.rounds.iter().map(|(fixed, dimensions)| of_round(dimensions, &held).unwrap_or(*fixed)).collect()
    }

    /// Begins a phase, or goes on with one; the tasks are that which is trained and the same on held-out rows.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub(super) fn begin(
        &self,
        phase: &Phase,
        state: &mut PhaseState,
        tasks: &[&dyn Task],
        reporter: &mut Reporter,
    ) -> Result<(), TrainError> {
        if state.hold.is_none() {
            let dual = Dual::new(&self.start, self.plan.max_lambda);
            let mut hold = HoldState { dual, sum: vec![0.0; self.start.len()], ..HoldState::default() };
            if let Driving::Samples(_) = self.driving {
                hold.before = self.values(phase, state, reporter)?.iter().map(|values| Before::of(values)).collect();
            }
            let reached: Vec<f64> = self.before(&hold).map(|before| before.mean).collect();
            reporter.emit(self.event(phase, &mut hold, &reached))?;
            state.hold = Some(hold);
        }
        self.give(state, tasks);
        Ok(())
    }

    fn give(&self, state: &PhaseState, tasks: &[&dyn Task]) {
        if let Some(hold) = &state.hold {
            tasks.iter().for_each(|task| task.hold(&self.lambda(hold.dual.lambda())));
        }
    }

    /// Whether λ is to be moved now.
    pub(super) fn due(&self, state: &PhaseState, steps: u64) -> bool {
        let updated = state.hold.as_ref().map_or(0, |hold| hold.updated);
        state.step > updated && state.step < steps && state.step.is_multiple_of(self.plan.every)
    }

    /// Measures the running policy and moves λ.
    ///
    /// # Errors
    /// A value that is not finite, the user's interruption, an event that could not be written.
    pub(super) fn update(
        &self,
        phase: &Phase,
        state: &mut PhaseState,
        tasks: &[&dyn Task],
        reporter: &mut Reporter,
    ) -> Result<(), TrainError> {
        let values = self.values(phase, state, reporter)?;
        let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let reached: Vec<f64> = values.iter().map(mean).collect();
        let done = state.step as f64 / phase.training.steps as f64;
        let hold = state.hold.get_or_insert_default();
        let broken = |((plan, before), reached): ((&HeldPlan, &Before), &f64)| {
            (before.bound(plan, done, self.plan.spend) - reached) / before.deviation
        };
        let dimensions = self.plan.dimensions.values().zip(self.before(hold));
        let violations: Vec<f64> = dimensions.zip(&reached).map(broken).collect();
        hold.dual.ascend(&violations, &self.plan.ascent());
        hold.updated = state.step;
        if 2 * state.step >= phase.training.steps {
            hold.sum.iter_mut().zip(hold.dual.lambda()).for_each(|(sum, lambda)| *sum += lambda);
            hold.updates += 1;
        }
        let event = self.event(phase, hold, &reached);
        self.give(state, tasks);
        reporter.emit(event)
    }

    /// What is bounded of each pair or answer of the running policy, `[held dimensions][pairs or answers]`.
    fn values(
        &self,
        phase: &Phase,
        state: &mut PhaseState,
        reporter: &mut Reporter,
    ) -> Result<Vec<Vec<f64>>, TrainError> {
        let model = state.policy();
        let budget = 2 * phase.training.micro_batch_tokens(&model.device());
        let values: Vec<Vec<f64>> = match &self.driving {
            Driving::Pairs(pairs) => {
                let sets: Vec<&HeldOutMargins> = pairs.iter().map(|(margins, _)| margins).collect();
                let margins = row_margins(&sets, &model, budget, reporter)?;
                let of = |(plan, margins): (&HeldPlan, Vec<f64>)| {
                    margins.into_iter().map(|margin| plan.of(margin)).collect()
                };
                self.plan.dimensions.values().zip(margins).map(of).collect()
            }
            Driving::Samples(own) => own.after(state.step, (phase.name, &model), budget, reporter)?,
        };
        for value in values.iter().map(|values| values.iter().sum()) {
            reporter.check_finite(phase.name, state.step, &[("what is held", value)], Vec::new)?;
        }
        Ok(values)
    }

    /// What was bounded of each held dimension before the phase.
    fn before<'s>(&'s self, state: &'s HoldState) -> impl Iterator<Item = &'s Before> {
        let (pairs, samples) = match &self.driving {
            Driving::Pairs(pairs) => (&pairs[..], &[][..]),
            Driving::Samples(_) => (&[][..], &state.before[..]),
        };
        pairs.iter().map(|(_, before)| before).chain(samples)
    }

    fn event(&self, phase: &Phase, hold: &mut HoldState, reached: &[f64]) -> Event {
        let (steps, mean) = (phase.training.steps, hold.mean());
        let done = hold.updated as f64 / steps as f64;
        let of = |(index, ((dimension, plan), before)): (usize, ((&String, &HeldPlan), &Before))| HeldDimension {
            dimension: dimension.clone(),
            measure: plan.measure().into(),
            reached: reached[index],
            bound: before.bound(plan, done, self.plan.spend),
            lambda: hold.dual.lambda()[index],
            mean_lambda: mean[index],
        };
        let dimensions = self.plan.dimensions.iter().zip(self.before(hold)).enumerate().map(of);
        let dimensions: Vec<HeldDimension> = dimensions.collect();
        hold.told.clone_from(&dimensions);
        Event::Held(Held { phase: phase.name.into(), step: hold.updated, steps, dimensions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bound;

    #[test]
    fn a_round_of_several_held_dimensions_has_the_sum_of_their_multipliers() {
        let held = [("honesty", 0.5), ("brevity", 0.25)];
        let of = |names: &[&str]| of_round(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), &held);
        assert_eq!((of(&["honesty"]), of(&["helpfulness"])), (Some(0.5), None));
        assert_eq!(of(&["brevity", "helpfulness", "honesty"]), Some(0.75));
    }

    #[test]
    fn a_loss_is_given_out_evenly_and_a_gain_is_asked_for_at_once() {
        let (plan, values) = (HeldPlan::Accuracy { accuracy: Bound::Change(-0.2) }, [1.0, 1.0, 0.0, 1.0]);
        let before = Before::of(&values);
        let bounds = [0.0, 0.25, 0.5, 1.0].map(|done| before.bound(&plan, done, 0.5));
        for (bound, expected) in bounds.iter().zip([0.75, 0.65, 0.55, 0.55]) {
            assert!((bound - expected).abs() < 1e-12, "{bounds:?}");
        }
        assert!((before.bound(&plan, 0.0, 0.0) - 0.55).abs() < 1e-12, "all of it at once");
        assert!((before.deviation - 0.1875f64.sqrt()).abs() < 1e-12);
        let plan = HeldPlan::Margin { margin: Bound::AtLeast(2.0) };
        assert_eq!(Before::of(&[1.0, 2.0, -1.0, 3.0]).bound(&plan, 0.1, 0.5), 2.0);
    }
}
