//! `[rounds.online]`, resolved.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spo_score::ScorerSpec;
use spo_score::pairing::Pairing;

use crate::config::spec::Unfinished;

/// How a round makes its own pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OnlinePlan {
    /// Who scores.
    pub scorer: ScorerSpec,
    /// File of prompts; `None` = those of the training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PathBuf>,
    /// Prompts that are answered at a time; 0 = all.
    pub prompts_at_once: usize,
    /// Answers to each prompt.
    pub samples: usize,
    /// Whether the data's own answers are paired with them.
    pub include_data: bool,
    /// Sampling temperature.
    pub temperature: f64,
    /// Nucleus.
    pub top_p: f64,
    /// Longest answer, tokens.
    pub max_new_tokens: usize,
    /// What becomes of answers that are cut.
    pub unfinished: Unfinished,
    /// Which answers become pairs.
    pub pair: Pairing,
    /// Least difference of a pair's scores.
    pub min_gap: f64,
    /// Steps between two samplings; 0 = one sampling.
    pub refresh: u64,
    /// Which part of its round this is, from 0.
    #[serde(default)]
    pub part: usize,
}
