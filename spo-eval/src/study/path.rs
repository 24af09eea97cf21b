//! The path of a run's last round: its accuracies over the KL to the start.

use super::StudyRun;
use crate::{EvalError, RunSummary, Subset, find_score};

/// A KL to the start in nats per response; `None`: the end.
pub type Place = Option<f64>;

/// A run's last round.
pub struct Path<'r> {
    /// The policy that it made.
    pub policy: &'r str,
    end: (Option<f64>, Vec<f64>),
    /// KL and accuracies of the policy that the round started from and of the running policy at each look, in their order.
    looks: Vec<(f64, Vec<f64>)>,
}

impl<'r> Path<'r> {
    /// The path of a run's last round that is no control.
    ///
    /// # Errors
    /// [`EvalError::NoPairs`]: the final policy was not scored on a dimension.
    pub fn of(run: &'r StudyRun, names: &[String]) -> Result<Self, EvalError> {
        let (summary, policy) = (&run.summary, final_policy(run));
        let last = summary.rounds.iter().rev().find(|round| !round.control);
        let scored = |policy: &str| -> Result<Vec<f64>, EvalError> {
            names.iter().map(|dimension| accuracy(summary, policy, dimension)).collect()
        };
        let kl = |policy: &str| summary.kl(policy, &summary.start).map(|estimate| estimate.mean);
        let end = (kl(policy), scored(policy)?);
        let mut looks = vec![];
        if let Some(round) = last {
            // The start itself is at no distance, and its margins are all 0: every pair counts half.
            let parent = match round.reference == summary.start {
                true => Some((0.0, vec![0.5; names.len()])),
                false => kl(&round.reference).zip(scored(&round.reference).ok()),
            };
            looks.extend(parent);
            for look in &round.evaluations {
                let of = |name: &String| Some(look.dimensions.iter().find(|(dimension, ..)| dimension == name)?.1);
                looks.extend(look.kl.map(|(kl, _)| kl).zip(names.iter().map(of).collect::<Option<Vec<f64>>>()));
            }
        }
        Ok(Self { policy, end, looks })
    }

    /// KL and accuracies at a place: at a KL those between the last two looks on both sides of it, and none where the round
    /// was never on both sides. (A round may first come back towards the start, and pass a KL twice.)
    pub fn at(&self, place: Place) -> Option<(Option<f64>, Vec<f64>)> {
        let Some(wanted) = place else { return Some(self.end.clone()) };
        self.looks.windows(2).rev().find_map(|pair| {
            let [(before, low), (after, high)] = pair else { return None };
            let between = (*before <= wanted && wanted <= *after) || (*after <= wanted && wanted <= *before);
            if !between {
                return None;
            }
            let share = if after == before { 0.0 } else { (wanted - before) / (after - before) };
            let mixed = low.iter().zip(high).map(|(low, high)| low + share * (high - low)).collect();
            Some((Some(wanted), mixed))
        })
    }
}

/// The policy that a run ends with.
pub fn final_policy(run: &StudyRun) -> &str {
    let last = run.summary.rounds.iter().rev().find(|round| !round.control);
    last.map_or(&run.summary.start, |round| &round.policy)
}

fn accuracy(summary: &RunSummary, policy: &str, dimension: &str) -> Result<f64, EvalError> {
    let tally = find_score(&summary.matrix, policy, dimension).and_then(|score| score.tally(Subset::All));
    let missing = || EvalError::NoPairs { policy: policy.to_owned(), dimension: dimension.to_owned() };
    tally.map(|tally| tally.accuracy).ok_or_else(missing)
}
