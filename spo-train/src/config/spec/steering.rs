//! `[steering]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[steering]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SteeringSpec {
    /// Dimensions each of which is a user, whose pairs are all that it prefers; the round learns the pairs of all of them,
    /// and its `dimension` is one of them. Default: every dimension of the training data. Excludes `column`.
    #[schemars(length(min = 2))]
    pub users: Option<Vec<String>>,
    /// Text field of the rows that names the user whose preference along the round's dimension a row is, such as `user`.
    pub column: Option<String>,
    /// Most labelled pairs that stand for a user in training: each step draws 0 to so many for each of its users.
    #[schemars(range(min = 1))]
    pub contexts: Option<usize>,
    /// Numbers of the vector z that stands for a user.
    #[schemars(range(min = 1))]
    pub width: Option<usize>,
    /// Heads of the attention over a user's pairs; they divide `width`.
    #[schemars(range(min = 1))]
    pub heads: Option<usize>,
    /// Whether z scales and shifts the output of every block (FiLM). `false` takes `[lora] condition = "contexts"`, and z acts through the
    /// adapters alone: then `spo export --steer` merges the policy for one user.
    pub films: Option<bool>,
    /// Numbers of contexts at which the policy is measured after the round.
    #[schemars(length(min = 1))]
    pub evaluate: Option<Vec<usize>>,
}
