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
}
