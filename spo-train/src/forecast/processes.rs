//! What each of several processes that share a run takes and gives.

use super::memory::ALLOCATOR_SHARE;
use super::{Forecast, MemoryForecast, PhaseMemory, Speed};
use crate::config::ParallelPlan;
use serde::Serialize;
use spo_team::tree;

/// Most bytes of a sum over processes at once, and how often they are there: what is given, what is got, the sums.
const EXCHANGED_AT_ONCE: usize = 64 << 20;
const COPIES: usize = 3;

/// One of so many processes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProcessForecast {
    /// How many share the run.
    pub processes: usize,
    /// Most memory of each, in bytes.
    pub memory: usize,
    /// The phase whose steps exchange most.
    pub phase: String,
    /// Bytes that each gives to others in a step of it.
    pub given_per_step: u64,
    /// Seconds that these take at the plan's `bandwidth`, where each process has a link of its own.
    pub seconds_per_step: f64,
}

impl ProcessForecast {
    /// For every number of processes that can share the plan's shards; none where there is one.
    pub(super) fn all(plan: &ParallelPlan, memory: &MemoryForecast, host: bool) -> Vec<Self> {
        let several = tree::possible_ranks(plan.shards).into_iter().filter(|processes| *processes > 1);
        several.map(|processes| Self::of(plan, processes, memory, host)).collect()
    }

    fn of(plan: &ParallelPlan, processes: usize, memory: &MemoryForecast, host: bool) -> Self {
        let of_phase = |phase: &PhaseMemory| bytes_of(phase, plan, processes, host);
        let others = [memory.saving, memory.sampling.unwrap_or(0)];
        let most = memory.phases.iter().map(of_phase).chain(others).max().unwrap_or(0);
        let phase = memory.phases.iter().max_by_key(|phase| phase.exchanged).expect("a run has rounds");
        // Each gives its part of every sum's addends, and its part of the sums; and then the weights that it has changed.
        let often = if plan.shares_moments() { 3 } else { 2 };
        let given_per_step = (often * phase.exchanged / processes * (processes - 1)) as u64;
        let seconds_per_step = 8.0 * given_per_step as f64 / (plan.bandwidth * 1e9);
        Self { processes, memory: most, phase: phase.phase.clone(), given_per_step, seconds_per_step }
    }
}

/// Memory of one of so many processes at the top of a step.
fn bytes_of(phase: &PhaseMemory, plan: &ParallelPlan, processes: usize, host: bool) -> usize {
    let levels = |shards: usize| shards.next_power_of_two().ilog2() as usize;
    let fewer = phase.exchanged * (levels(plan.shards) - levels(plan.shards / processes));
    let gone = fewer.min(phase.gradients);
    let allocator = if host { (ALLOCATOR_SHARE * gone as f64) as usize } else { 0 };
    // With a sharded state about its part of it.
    let moments = if plan.shares_moments() { phase.optimizer / processes } else { phase.optimizer };
    let exchange = if host { COPIES * phase.exchanged.min(EXCHANGED_AT_ONCE) } else { 0 };
    phase.total - gone - allocator - (phase.optimizer - moments) + exchange
}

impl Forecast {
    /// That exchanging will take longer than computing, by the speed that was measured on this machine and the plan's
    /// `bandwidth`: of the fewest processes with which it does.
    pub(super) fn slow_exchange(&self, speed: &Speed, plan_bandwidth: f64) -> Option<String> {
        self.processes.iter().find_map(|of| {
            let phase = self.phases.iter().find(|phase| phase.phase == of.phase)?;
            let computed =
                phase.tokens as f64 / phase.steps as f64 / speed.training_of(&of.phase) / of.processes as f64;
            (of.seconds_per_step > computed).then(|| {
                format!(
                    "with {} processes the exchange of a step of {} takes {:.1} s at {plan_bandwidth} Gbit/s ([parallel] \
                     bandwidth), and its computation {computed:.1} s at the speed measured here: [lora], more pairs per step \
                     or a faster network",
                    of.processes, of.phase, of.seconds_per_step
                )
            })
        })
    }
}
