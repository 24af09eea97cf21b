//! `[steering]`, resolved.

use serde::{Deserialize, Serialize};
use spo_model::steering::SteeringSpec;

/// What makes a policy one for many users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SteeringPlan {
    /// Dimensions each of which is a user; empty where a field of the rows names users.
    #[serde(default)]
    pub users: Vec<String>,
    /// The field of the rows that names users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Most contexts in training.
    pub contexts: usize,
    /// Numbers of z.
    pub width: usize,
    /// Heads of the attention.
    pub heads: usize,
    /// Whether z scales and shifts the output of every block.
    #[serde(default = "films")]
    pub films: bool,
    /// Numbers of contexts that are measured.
    pub evaluate: Vec<usize>,
}

/// What plans say that are older than the key.
fn films() -> bool {
    true
}

impl SteeringPlan {
    /// The shape of the model's part.
    pub fn spec(&self) -> SteeringSpec {
        SteeringSpec { width: self.width, heads: self.heads, contexts: self.contexts, films: self.films }
    }
}
