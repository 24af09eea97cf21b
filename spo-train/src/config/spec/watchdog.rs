//! `[watchdog]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[watchdog]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WatchdogSpec {
    /// A gradient norm this many times the median of the phase's last 50 steps.
    #[schemars(range(min = 0))]
    pub gradient_norm_factor: Option<f64>,
    /// Chosen answers that lost this many nats per token against the reference, on average over 10 steps.
    #[schemars(range(min = 0))]
    pub chosen_drop: Option<f64>,
    /// Share of a round's pairs on which the carried |c| is above 5 at its start, so that their loss is saturated.
    #[schemars(range(min = 0, max = 1))]
    pub saturated_share: Option<f64>,
    /// Sampled responses this many times longer or shorter than those of the policy that the first round starts from.
    #[schemars(range(min = 0))]
    pub length_factor: Option<f64>,
    /// Evaluations on the held-out pairs in a row at which the loss rose.
    pub overfitting: Option<usize>,
    /// A step that takes this many times as long as usual, and more than a minute.
    #[schemars(range(min = 0))]
    pub slow_step_factor: Option<f64>,
}
