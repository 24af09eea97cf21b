//! `[parallel]`, resolved.

use super::{RoundPlan, RunPlan, WarmupPlan};
use crate::config::defaults;
use crate::config::spec::OptimizerState;
use serde::{Deserialize, Serialize};

/// How several processes share a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ParallelPlan {
    /// Parts of each step's batch; 1 = it is not cut.
    pub shards: usize,
    /// Seconds that a process waits for the others.
    pub timeout: f64,
    /// Where AdamW's moments are.
    #[serde(default)]
    pub optimizer_state: OptimizerState,
    /// Gbit/s between the processes.
    #[serde(default = "bandwidth")]
    pub bandwidth: f64,
}

fn bandwidth() -> f64 {
    defaults::BANDWIDTH
}

impl ParallelPlan {
    /// Whether each process keeps the moments of some parameters only, where there are several.
    pub fn shares_moments(&self) -> bool {
        self.optimizer_state == OptimizerState::Sharded
    }
}

impl Default for ParallelPlan {
    /// As runs were before there was such a section.
    fn default() -> Self {
        serde_json::from_value(serde_json::Value::Object(defaults::table(&defaults::parallel())))
            .expect("the defaults are a plan")
    }
}

/// Why steps cannot be cut into so many shards, if they cannot.
pub(crate) fn unshared(shards: usize, rounds: &[RoundPlan], warmup: Option<&WarmupPlan>) -> Option<String> {
    let arms = rounds.iter().flat_map(|round| round.arms.iter().map(|arm| (round.name.as_str(), &arm.training)));
    let mut all = warmup.map(|warmup| ("the warm-up", &warmup.training)).into_iter().chain(arms);
    all.find_map(|(name, training)| {
        if shards > 1 && training.update_in_backward {
            return Some(format!("{name} has `update-in-backward`, whose batch cannot be cut"));
        }
        let pairs = training.pairs_per_step;
        (shards > pairs).then(|| format!("{name} has {pairs} pairs per step, which cannot be cut into {shards} shards"))
    })
}

impl RunPlan {
    /// Whether the run file says how many shards there are.
    pub(crate) fn says_shards(&self) -> bool {
        use super::Origin::{File, Set};
        matches!(self.origins.get("parallel.shards"), Some(File { .. } | Set { .. }))
    }
}
