//! `hold` of a round.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the round may cost earlier dimensions: a bound per dimension in place of its λ, which the run finds by dual ascent on
/// data that nothing else uses (`hold-share`), such as `hold = { honesty = { accuracy = "-0.02" } }`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct HoldSpec {
    /// Optimiser steps between two updates of λ, each of which costs one pass over what drives it.
    #[schemars(range(min = 1))]
    pub every: Option<u64>,
    /// Share of the round's steps over which what may be lost is given out, evenly; after that the bound is the one asked for.
    #[schemars(range(min = 0, max = 1))]
    pub spend: Option<f64>,
    /// What an update adds to λ where the bound is broken by one standard deviation of what is bounded: the step of the dual
    /// ascent.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rate: Option<f64>,
    /// What it adds beside that only while the bound is broken, or takes off while there is room: it keeps λ from swinging.
    #[schemars(range(min = 0))]
    pub gain: Option<f64>,
    /// λ goes no higher. A bound that is broken there is out of reach.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub max_lambda: Option<f64>,
    /// What drives λ: labelled `pairs`, or `samples` of the running policy's own answers, whose mean implicit reward is bounded
    /// (`reward` alone, as a change). The frozen policies which that reward is made of stay in memory. It is over-confident on
    /// answers that are far from its data: also gate the round by its pairs' accuracy.
    pub on: Option<HoldOn>,
    /// With `on = "samples"`: prompts of `hold-share` that the policy answers at each update, and held-out ones that judge.
    #[schemars(range(min = 1))]
    pub sample_prompts: Option<usize>,
    /// With `on = "samples"`: answers to each prompt.
    #[schemars(range(min = 1, max = 64))]
    pub samples: Option<usize>,
    /// With `on = "samples"`: longest answer, in tokens.
    #[schemars(range(min = 1))]
    pub max_new_tokens: Option<usize>,
    /// With `on = "samples"`: sampling temperature. The bound is only one on the policy itself at 1.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub temperature: Option<f64>,
    /// The bound of an earlier dimension.
    #[serde(flatten)]
    pub dimensions: BTreeMap<String, HoldBoundSpec>,
}

/// One bound on one dimension: a change from the policy that the round starts from, such as `"-0.02"`, or an absolute value,
/// `">= 0.60"`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HoldBoundSpec {
    /// On the share of pairs with a positive margin, from 0 to 1: `"-0.02"` gives up two points, `">= 0.60"` keeps 60 %.
    pub accuracy: Option<String>,
    /// On the mean margin `Δ log(π/π_0)`, in nats.
    pub margin: Option<String>,
    /// On the mean margin in nats of implicit reward, `β·Δ log(π/π_0)` with the β (or α) of the dimension's round. With `on =
    /// "samples"`: on the mean implicit reward that the dimension's round learnt, over answers of the running policy.
    pub reward: Option<String>,
}

/// What the bounds of a round are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HoldOn {
    /// Labelled pairs that no round trains on.
    #[default]
    Pairs,
    /// Answers that the policy writes itself.
    Samples,
}
