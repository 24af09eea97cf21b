//! Finished policies against the bounds of their rounds.

use crate::TrainError;
use crate::config::{Bound, HeldPlan, HoldPlan, SampledPlan};
use crate::evaluate::own_rewards::{OwnAnswers, add};
use crate::events::{Event, HeldDimension};
use crate::policy::sampling::distinct_prompts;
use crate::run::evaluation::Margins;
use crate::run::place::Place;
use crate::run::stages::Driver;
use spo_eval::bootstrap::clusters;
use spo_eval::{Bootstrap, HoldSummary, PairScore, Subset, paired_difference, score_dimension};

/// A value with its 95 % interval.
type Measured = (f64, (f64, f64));

impl Driver<'_> {
    /// Holds a finished policy against the bounds of its arm, if it has any.
    pub(super) fn judge_hold(&mut self, place: &Place, margins: &Margins) -> Result<(), TrainError> {
        let Some(plan) = place.arm.and_then(|arm| arm.plan.hold.as_ref()) else { return Ok(()) };
        let measured = match &plan.sampled {
            Some(sampled) => self.measure_samples(place, sampled)?,
            None => self.measure_pairs(place, plan, margins)?,
        };
        let summary = Judging { plan, policy: &place.policy, last: &self.trained[&place.policy].held };
        let all: Vec<HoldSummary> =
            plan.dimensions.iter().zip(measured).map(|((name, held), of)| summary.of(name, held, of)).collect();
        for summary in all {
            let shortfall = summary.shortfall();
            self.reporter.emit(Event::HoldJudged(summary))?;
            shortfall.map_or(Ok(()), |text| self.reporter.emit(Event::Warning { text }))?;
        }
        Ok(())
    }

    /// What is bounded on the held-out pairs.
    fn measure_pairs(&self, place: &Place, plan: &HoldPlan, margins: &Margins) -> Result<Vec<Found>, TrainError> {
        let (set, driving) = (&self.prepared.held_out, &self.prepared.driving);
        let (policy, parent) = (place.policy.as_str(), place.parent());
        let of = |(dimension, held): (&String, &HeldPlan)| {
            let [own, before] = [margins, &self.margins[parent]].map(|of| set.pair_scores(dimension, &of[dimension]));
            let measured = match held.bound() {
                Bound::Change(_) => change(held, dimension, [(policy, &own), (parent, &before)], &self.bootstrap),
                Bound::AtLeast(_) => value(held, policy, dimension, &own, &self.bootstrap),
            }?;
            Ok(Found { measured, judging: own.len(), driving: driving.judged(dimension).len() })
        };
        plan.dimensions.iter().map(of).collect()
    }

    /// The change of the mean reward from the policy before, on fresh answers of both to held-out prompts, which drove no λ.
    fn measure_samples(&mut self, place: &Place, sampled: &SampledPlan) -> Result<Vec<Found>, TrainError> {
        let frozen = self.rewarding(place)?;
        let [held_out, driving] = [&self.prepared.held_out, &self.prepared.driving]
            .map(|set| distinct_prompts(&set.dataset, sampled.sample_prompts));
        let (judging, driving, seed) = (held_out.len(), driving.len(), self.plan.seed);
        let answers = OwnAnswers { plan: sampled, prompts: held_out, stop: &self.stop, seed, round: place.round() };
        let budget = self.prepared.scored_at_once();
        let mut drawn = vec![];
        for policy in [place.policy.as_str(), place.parent()] {
            drawn.push(answers.draw(policy, self.resident.get(policy)?, "judged", &self.reporter)?);
        }
        let mut rewards = [vec![], vec![]];
        for (policy, weights) in &frozen {
            self.reporter.check_stop()?;
            let model = self.resident.get(policy)?;
            for (drawn, rewards) in drawn.iter().zip(&mut rewards) {
                add(rewards, weights, &drawn.score(&self.reporter.team, model, budget)?);
            }
        }
        let [own, before] = &rewards;
        let of = |(own, before): (&Vec<f64>, &Vec<f64>)| {
            let differences = own.iter().zip(before).map(|(own, before)| own - before);
            let by_prompt = clusters(differences.enumerate().map(|(at, change)| (at / sampled.samples, [change])));
            let [interval] = self.bootstrap.intervals(&by_prompt)?;
            let reached = by_prompt.iter().map(|prompt| prompt.sums[0]).sum::<f64>() / own.len() as f64;
            Ok(Found { measured: (reached, interval), judging, driving })
        };
        own.iter().zip(before).map(of).collect()
    }
}

/// What is bounded, as it was measured.
struct Found {
    measured: Measured,
    /// Pairs or prompts behind it.
    judging: usize,
    /// Pairs or prompts that drove λ.
    driving: usize,
}

/// A finished policy with its bounds.
struct Judging<'j> {
    plan: &'j HoldPlan,
    policy: &'j str,
    /// When λ was moved last.
    last: &'j [HeldDimension],
}

impl Judging<'_> {
    fn of(&self, dimension: &str, held: &HeldPlan, found: Found) -> HoldSummary {
        let (asked, relative) = match held.bound() {
            Bound::Change(change) => (change, true),
            Bound::AtLeast(value) => (value, false),
        };
        let (reached, interval) = found.measured;
        let last = self.last.iter().find(|of| of.dimension == dimension);
        let most = self.plan.max_lambda;
        HoldSummary {
            round: self.policy.into(),
            dimension: dimension.into(),
            on: if self.plan.sampled.is_some() { "samples" } else { "pairs" }.into(),
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
            pairs: found.judging,
            driving: found.driving,
        }
    }
}

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
