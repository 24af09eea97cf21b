//! Rounds with bounds: what drives their λ, what λ came to, and how the policy is judged.

use crate::TrainError;
use crate::config::{Bound, HeldPlan, HoldPlan, RoundPlan, RunPlan};
use crate::evaluate::held_out_loss::HeldOutMargins;
use crate::evaluate::labelled_set::{LabelledSet, log_ratio_margins};
use crate::events::{Event, Held, HeldDimension};
use crate::phase::hold::{Bounded, Hold, of_round};
use crate::policy::logps::PolicyLogps;
use crate::run::evaluation::Margins;
use crate::run::place::{ArmPlace, Place};
use crate::run::stages::Driver;
use crate::task::Task;
use crate::task::build::Lambdas;
use serde_json::Value;
use spo_eval::{Bootstrap, HoldSummary, PairScore, Subset, paired_difference, score_dimension};

/// The bounds of an arm, whose task visits these rows; the task has the start value of λ from here on.
pub(super) fn hold<'a>(
    (plan, arm): (&'a RunPlan, ArmPlace<'a>),
    driving: &'a LabelledSet,
    history: &[&PolicyLogps],
    task: &dyn Task,
    visited: &[usize],
) -> Result<Option<Hold<'a>>, TrainError> {
    let Some(hold) = &arm.plan.hold else { return Ok(None) };
    let (start, parent) = (history[0], history[history.len() - 1]);
    let bounded = |(dimension, plan): (&'a String, &'a HeldPlan)| {
        let rows = driving.judged(dimension);
        let start = driving.logps(start, &rows)?;
        let before = log_ratio_margins(&driving.logps(parent, &rows)?, &start);
        let margins =
            HeldOutMargins { dimension: dimension.clone(), dataset: &driving.dataset, rows, start: Some(start) };
        Ok(Bounded::new(plan, margins, &before))
    };
    let dimensions = hold.dimensions.iter().map(bounded).collect::<Result<Vec<_>, TrainError>>()?;
    let rounds = fixed(arm).into_iter().zip(plan.rounds.iter().map(RoundPlan::dimensions)).collect();
    Hold::new(hold, dimensions, rounds, task, visited).map(Some)
}

/// λ of each earlier round as the plan has it.
fn fixed(arm: ArmPlace) -> Vec<f64> {
    let lambda = arm.plan.options.get("lambda").and_then(Value::as_array);
    lambda.into_iter().flatten().filter_map(Value::as_f64).collect()
}

/// λ of each earlier round, where bounds have found it.
fn of_arm(plan: &RunPlan, arm: ArmPlace, told: &[HeldDimension]) -> Vec<f64> {
    let found: Vec<(&str, f64)> = told.iter().map(|of| (of.dimension.as_str(), of.mean_lambda)).collect();
    let rounds = fixed(arm).into_iter().zip(&plan.rounds);
    rounds.map(|(fixed, round)| of_round(round.dimensions(), &found).unwrap_or(fixed)).collect()
}

/// The λ that the plan does not have: of the rounds before an arm, and of the arm itself where its policy is finished.
fn lambdas<'t>(
    plan: &RunPlan,
    arm: ArmPlace,
    own: &str,
    told: impl Fn(&str) -> Option<&'t [HeldDimension]>,
) -> Lambdas {
    let before = plan.rounds[..arm.index]
        .iter()
        .enumerate()
        .map(|(index, round)| (ArmPlace { index, number: 0, round, plan: round.main() }, round.name.as_str()));
    let all = before.chain([(arm, own)]).filter(|(arm, _)| arm.plan.hold.is_some());
    Lambdas(all.filter_map(|(arm, name)| Some((arm.index, of_arm(plan, arm, told(name)?)))).collect())
}

/// The held dimensions of a phase of an earlier run when λ was moved last, from its events.
pub(super) fn told(events: &[Event]) -> Vec<HeldDimension> {
    let last = events.iter().rev().find_map(|event| match event {
        Event::Held(Held { dimensions, .. }) => Some(dimensions.clone()),
        _ => None,
    });
    last.unwrap_or_default()
}

impl Driver<'_> {
    /// λ of earlier rounds, and of the arm's own policy if that is finished, where it was found in training.
    pub(super) fn lambdas(&self, arm: ArmPlace, policy: &str) -> Lambdas {
        lambdas(self.plan, arm, policy, |name| Some(&self.trained.get(name)?.held))
    }

    /// Holds a finished policy against the bounds of its arm, if it has any.
    pub(super) fn judge_hold(&mut self, place: &Place, margins: &Margins) -> Result<(), TrainError> {
        let Some(plan) = place.arm.and_then(|arm| arm.plan.hold.as_ref()) else { return Ok(()) };
        let (policy, parent, prepared) = (place.policy.as_str(), place.parent(), self.prepared);
        let margins = [margins, &self.margins[parent]];
        let judging =
            Judging { plan, policy, parent, margins, last: &self.trained[policy].held, driving: &prepared.driving };
        for summary in judging.summaries(&prepared.held_out, &self.bootstrap)? {
            let shortfall = summary.shortfall();
            self.reporter.emit(Event::HoldJudged(summary))?;
            shortfall.map_or(Ok(()), |text| self.reporter.emit(Event::Warning { text }))?;
        }
        Ok(())
    }
}

/// A finished policy against its bounds, on the held-out pairs.
struct Judging<'j> {
    plan: &'j HoldPlan,
    policy: &'j str,
    parent: &'j str,
    /// Held-out margins of both.
    margins: [&'j Margins; 2],
    /// When λ was moved last.
    last: &'j [HeldDimension],
    /// Pairs that drive λ.
    driving: &'j LabelledSet,
}

impl Judging<'_> {
    /// One summary for each bound.
    pub fn summaries(&self, set: &LabelledSet, bootstrap: &Bootstrap) -> Result<Vec<HoldSummary>, TrainError> {
        self.plan.dimensions.iter().map(|(name, held)| self.summary(name, held, set, bootstrap)).collect()
    }

    fn summary(
        &self,
        dimension: &str,
        held: &HeldPlan,
        set: &LabelledSet,
        bootstrap: &Bootstrap,
    ) -> Result<HoldSummary, TrainError> {
        let [own, before] = self.margins.map(|margins| set.pair_scores(dimension, &margins[dimension]));
        let (asked, relative) = match held.bound() {
            Bound::Change(change) => (change, true),
            Bound::AtLeast(value) => (value, false),
        };
        let (reached, interval) = if relative {
            change(held, dimension, [(self.policy, &own), (self.parent, &before)], bootstrap)?
        } else {
            value(held, self.policy, dimension, &own, bootstrap)?
        };
        let last = self.last.iter().find(|of| of.dimension == dimension);
        let most = self.plan.max_lambda;
        Ok(HoldSummary {
            round: self.policy.into(),
            dimension: dimension.into(),
            measure: held.measure().into(),
            relative,
            asked,
            reached,
            interval,
            lambda: last.map_or(0.0, |of| of.mean_lambda),
            met: interval.1 >= asked,
            at_limit: last.is_some_and(|of| of.lambda >= most),
            // The bound that was driven at is the one asked for by then, so the two differ by the same as here.
            driven: asked + last.map_or(0.0, |of| of.reached - of.bound),
            pairs: own.len(),
            driving: self.driving.judged(dimension).len(),
        })
    }
}

type Measured = (f64, (f64, f64));

/// What is bounded of a policy less that of another on the same pairs.
fn change(
    held: &HeldPlan,
    dimension: &str,
    [own, before]: [(&str, &Vec<PairScore>); 2],
    bootstrap: &Bootstrap,
) -> Result<Measured, TrainError> {
    let difference = paired_difference(dimension, (own.0, own.1), (before.0, before.1), Subset::All, bootstrap)?;
    let difference = difference.expect("a held dimension has held-out pairs");
    Ok(match held {
        HeldPlan::Accuracy { .. } => (difference.accuracy_difference, difference.interval),
        _ => scaled(held, difference.margin_difference, difference.margin_interval),
    })
}

/// What is bounded of a policy.
fn value(
    held: &HeldPlan,
    policy: &str,
    dimension: &str,
    own: &[PairScore],
    bootstrap: &Bootstrap,
) -> Result<Measured, TrainError> {
    let score = score_dimension(policy, dimension, own, bootstrap)?;
    let tally = score.tally(Subset::All).expect("a held dimension has held-out pairs");
    let half = 1.96 * tally.margin_stderr;
    Ok(match held {
        HeldPlan::Accuracy { .. } => (tally.accuracy, tally.interval),
        _ => scaled(held, tally.mean_margin, (tally.mean_margin - half, tally.mean_margin + half)),
    })
}

fn scaled(held: &HeldPlan, value: f64, interval: (f64, f64)) -> Measured {
    (held.of(value), (held.of(interval.0), held.of(interval.1)))
}
