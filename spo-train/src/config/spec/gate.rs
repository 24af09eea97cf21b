//! `[rounds.gate]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the round's policy must reach on the held-out pairs. Conditions stand per dimension: `honesty.accuracy = ">= 0.60"`,
/// `honesty.margin = "> 0"`. A round that misses its gate ends the run with exit code 3.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct GateSpec {
    /// Most accuracy that any dimension may lose against the best policy before, from 0 to 1: 0.02 is two points.
    #[schemars(range(min = 0, max = 1))]
    pub max_forgetting: Option<f64>,
    /// End the round as soon as the running policy passes at so many of its `eval-every` evaluations in a row: what the next
    /// round learns is admitted then. Without it the round takes all its steps.
    #[schemars(range(min = 1))]
    pub admit_after: Option<u64>,
    /// What a miss does: `stop` ends the run; `roll-back` goes on with the best policy that the round had at one of its
    /// `eval-every` evaluations, if that one passes, and ends the run with exit code 3 all the same; `go-on` says so and goes
    /// on with the next round.
    pub on_miss: Option<OnMiss>,
    /// Conditions of a dimension.
    #[serde(flatten)]
    pub dimensions: BTreeMap<String, GateConditionsSpec>,
}

/// Conditions on one dimension's held-out pairs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GateConditionsSpec {
    /// On the share of pairs with a positive margin, from 0 to 1.
    pub accuracy: Option<String>,
    /// On the mean margin `Δ log(π/π_0)`, in nats.
    pub margin: Option<String>,
}

/// What a missed gate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnMiss {
    /// The run ends there.
    Stop,
    /// The round's best policy takes the place of its last one.
    RollBack,
    /// The next round begins all the same.
    GoOn,
}
