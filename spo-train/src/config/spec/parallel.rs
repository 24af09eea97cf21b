//! `[parallel]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How several processes share a run that is started by mpirun or srun; docs/distributed.md.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ParallelSpec {
    /// Parts that each step's batch is cut into, whose gradients are added in a balanced tree: the result is the same, bit
    /// for bit on the CPU, on any number of processes that each take 1, 2, 4, 8, … of them. Without the key as many as
    /// processes begin the run; a run that goes on keeps them. At most `pairs-per-step`.
    #[schemars(range(min = 1))]
    pub shards: Option<usize>,
    /// Seconds that a process waits for the others before it ends all of them, with exit code 75. Changes no result.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub timeout: Option<f64>,
    /// Where AdamW's moments are, and f32 weights where those of the model are stored in 16 bits. Changes no result.
    pub optimizer_state: Option<OptimizerState>,
    /// Gbit/s between the processes, as `spo plan` reckons with them. Changes no result.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub bandwidth: Option<f64>,
}

/// Where an optimiser's state is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerState {
    /// All of it in each process.
    #[default]
    Replicated,
    /// Each process has that of some parameters, changes those, and gives them to the others (ZeRO stage 1, arXiv
    /// 1910.02054): half as many bytes more between the processes.
    Sharded,
}
