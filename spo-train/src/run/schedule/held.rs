//! What bounds on a policy's own answers cost.

use super::Responses;
use crate::config::{HoldPlan, RunPlan};
use crate::policy::sampling::distinct_prompts;
use crate::run::place::Place;
use spo_data::Dataset;

/// Answers that bounds are on; nothing where they are on pairs, or there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HeldAnswers {
    /// All that are written.
    pub written: Responses,
    /// Tokens that frozen policies score for them, at most.
    pub scored_tokens: u64,
}

impl HeldAnswers {
    /// To the prompts of a set, so many times.
    fn of(plan: &RunPlan, place: &Place, set: &Dataset, times: u64) -> Self {
        let hold = place.arm.and_then(|arm| arm.plan.hold.as_ref());
        let Some(sampled) = hold.and_then(|hold| hold.sampled.as_ref()) else { return Self::default() };
        let prompts = distinct_prompts(set, sampled.sample_prompts);
        let longest = |prompt: &Vec<u32>| (prompt.len() + sampled.max_new_tokens) as u64;
        let each = times * sampled.samples as u64;
        Self {
            written: Responses { count: each as usize * prompts.len(), max_new_tokens: sampled.max_new_tokens },
            scored_tokens: frozen(plan, place) as u64 * each * prompts.iter().map(longest).sum::<u64>(),
        }
    }

    /// Those of a whole phase: before its first step and at each update of λ.
    pub fn driving(plan: &RunPlan, place: &Place, set: &Dataset) -> Self {
        let hold = place.arm.and_then(|arm| arm.plan.hold.as_ref());
        Self::of(plan, place, set, hold.map_or(0, |hold| 1 + hold.updates(place.training.steps)))
    }

    /// Those that judge a finished policy: its own, and the policy's before.
    pub fn judging(plan: &RunPlan, place: &Place, set: &Dataset) -> Self {
        Self::of(plan, place, set, 2)
    }
}

/// Frozen policies that the rewards of an arm's held dimensions are made of, at most, where bounds are on samples: the one
/// that learnt the last of them, and all before it.
pub(crate) fn frozen(plan: &RunPlan, place: &Place) -> usize {
    let sampled = |hold: &&HoldPlan| hold.sampled.is_some();
    let held = place.arm.and_then(|arm| Some((arm.index, arm.plan.hold.as_ref().filter(sampled)?)));
    held.map_or(0, |(index, hold)| {
        let learns = |dimension: &String| hold.dimensions.contains_key(dimension);
        let last = plan.rounds[..index].iter().rposition(|round| round.dimensions().iter().any(learns));
        last.map_or(0, |last| last + 2)
    })
}
