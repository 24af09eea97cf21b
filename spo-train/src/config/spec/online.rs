//! `[rounds.online]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spo_score::ScorerSpec;
use spo_score::pairing::Pairing;

/// Pairs that the round makes itself: the policy that it starts from answers prompts, a scorer scores the answers, and
/// answers that differ become pairs of the round's dimension. They are kept in the run directory, in `online/`. With
/// `objective = "score"` no pairs are made: minus the mean score of the running policy's answers is the loss of each step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OnlineSpec {
    /// Required. Who scores: `KIND`, `KIND:ARGUMENT` or a table with `kind` and options; `spo list scorers` shows all. Of
    /// scores by dimension the round's own is trained on, and the others label the same pairs.
    pub scorer: Option<ScorerSpec>,
    /// File of prompts, as `spo generate --prompts` takes it; without it they are those of the training data.
    pub prompts: Option<PathBuf>,
    /// Prompts that are answered at a time, others each time until all had their turn; 0 = all of them.
    pub prompts_at_once: Option<usize>,
    /// Answers to each prompt. With `objective = "score"` 1: as many answers to more prompts (`pairs-per-step`) say more.
    #[schemars(range(min = 1, max = 64))]
    pub samples: Option<usize>,
    /// Whether the training data's own answers to a prompt are scored and paired with the sampled ones.
    pub include_data: Option<bool>,
    /// Sampling temperature; 0 takes the most likely token each time, which gives one answer to a prompt.
    #[schemars(range(min = 0))]
    pub temperature: Option<f64>,
    /// Tokens are drawn from the most likely ones whose probabilities sum to this.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
    pub top_p: Option<f64>,
    /// Longest answer, in tokens.
    #[schemars(range(min = 1))]
    pub max_new_tokens: Option<usize>,
    /// What becomes of answers that are cut at that length.
    pub unfinished: Option<Unfinished>,
    /// Which answers to a prompt become pairs.
    pub pair: Option<Pairing>,
    /// Pairs whose scores differ by less are left out; those with equal scores always are.
    #[schemars(range(min = 0))]
    pub min_gap: Option<f64>,
    /// Optimiser steps after which new answers are sampled from the policy as it is then, which is also the reference from
    /// then on; 0 = none until the round ends. The parts of the round are policies of their own, `NAME-1`, `NAME-2`, ….
    pub refresh: Option<u64>,
}

/// What becomes of answers that do not end by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unfinished {
    /// They are scored as the others: the scorer should mind.
    #[default]
    Keep,
    /// They have no score and enter no pair.
    Drop,
}
