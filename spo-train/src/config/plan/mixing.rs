//! Several dimensions in one step: pairs of earlier ones beside the round's own, or gradients that become one.

use serde::{Deserialize, Serialize};

use super::TrainingPlan;
use crate::config::spec::Combine;

/// How the gradients of several dimensions become one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CombinePlan {
    /// The way.
    pub combine: Combine,
    /// `c` of CAGrad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cagrad_c: Option<f64>,
}

impl TrainingPlan {
    /// How many pairs of a step are drawn from each earlier dimension's.
    pub fn replayed_pairs(&self) -> impl Iterator<Item = (&str, usize)> {
        let pairs = |share: &f64| (share * self.pairs_per_step as f64).round() as usize;
        self.replay.iter().map(move |(dimension, share)| (dimension.as_str(), pairs(share)))
    }

    /// The round's own pairs of a step.
    pub fn own_pairs_per_step(&self) -> usize {
        self.pairs_per_step.saturating_sub(self.replayed_pairs().map(|(_, pairs)| pairs).sum())
    }

    /// `c` of CAGrad, where a step has a gradient for each dimension: at 0 it is that of the weighted sum.
    pub fn conflict_aversion(&self) -> Option<f64> {
        let found = self.combine.filter(|found| found.combine == Combine::Cagrad)?;
        found.cagrad_c.filter(|c| *c > 0.0)
    }
}
