//! `[checkpoints]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Snapshots inside a round, from which `spo train --resume` goes on; finished policies are always kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CheckpointSpec {
    /// Optimiser steps between two checkpoints; 0 = not by steps.
    pub every_steps: Option<u64>,
    /// Minutes after which one is due at the latest, whatever the steps; 0 = not by time. Changes no result.
    #[schemars(range(min = 0))]
    pub every_minutes: Option<f64>,
    /// How many of the last ones are kept.
    #[schemars(range(min = 1))]
    pub keep_last: Option<usize>,
    /// Also keep the best policy that each round had, by what `eval-every` finds on the held-out pairs of the round's
    /// dimension: `policies/ROUND@best`, for other commands `RUN:ROUND@best`. A supervised warm-up has only a loss.
    pub keep_best: Option<Best>,
}

/// What makes a policy the best one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Best {
    /// None is kept.
    None,
    /// The lowest held-out loss.
    Loss,
    /// The highest held-out accuracy.
    Accuracy,
    /// The highest mean held-out margin.
    Margin,
}
