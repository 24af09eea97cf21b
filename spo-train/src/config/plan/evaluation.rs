//! What is measured of a run.

use crate::config::defaults;
use serde::{Deserialize, Serialize};
use spo_score::ScorerSpec;

/// `[evaluation]`, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EvaluationPlan {
    /// Bootstrap resamples.
    pub bootstrap_resamples: usize,
    /// Prompts sampled for the KL estimate.
    pub kl_samples: usize,
    /// Longest sampled response, tokens.
    pub kl_max_new_tokens: usize,
    /// Sampling temperature.
    pub kl_temperature: f64,
    /// Whether looks in the middle of a round estimate the divergence from the start.
    #[serde(default)]
    pub kl_path: bool,
    /// Whether what policies get right is kept for each held-out prompt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_prompt: bool,
    /// Pairs of each dimension that gradients are compared on; 0 = none.
    #[serde(default)]
    pub gradient_pairs: usize,
    /// Steps from one look at them to the next.
    #[serde(default = "defaults::gradient_every")]
    pub gradient_every: u64,
    /// Held-out prompts shown side by side.
    pub samples: usize,
    /// The user's own prompts.
    pub sample_prompts: Vec<String>,
    /// Who scores the responses sampled on held-out prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scorer: Option<ScorerSpec>,
    /// A program that measures every policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Seconds that it may take.
    #[serde(default)]
    pub command_timeout: f64,
    /// Answers that say nothing.
    pub boilerplate: Vec<String>,
}
