//! `[[rounds]]` and `[[rounds.controls]]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use spo_data::meta::{ASKED, ASKED_NOTHING, ASKED_SHUFFLED};
use std::collections::BTreeMap;

use super::{GateSpec, HoldSpec, OnlineSpec, TrainingSpec};

/// One round: train on the pairs of one dimension, starting from the policy the round before ended with.
/// Also takes every key of `[training]` and every option of its objective.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RoundSpec {
    /// Required. The preference dimension whose pairs are trained on, or a list of two or more, which are weighed.
    pub dimension: Dimensions,
    /// Train on the pairs of all earlier rounds' dimensions as well, weighed as in a list (docs/rivals.md).
    pub cumulative: Option<bool>,
    /// Name in reports and directories; default `round-N-DIMENSION`.
    pub name: Option<String>,
    /// With a list of dimensions and without `[lora] condition`: the weight of each dimension's loss, such as
    /// `dimension-weights = { honesty = 0.7, helpfulness = 0.3 }`; they sum to 1. Default: equal ones.
    pub dimension_weights: Option<BTreeMap<String, f64>>,
    /// Objective; default `dpo` in the first round and where several dimensions are weighed, `spo` in the other later ones. `spo list objectives` shows all.
    pub objective: Option<String>,
    /// The same round trained again from the same start with other settings, for comparison; never carried on.
    pub controls: Option<Vec<ControlSpec>>,
    /// What the round's policy must reach.
    pub gate: Option<GateSpec>,
    /// What the round may cost earlier dimensions, in place of their `lambda`.
    pub hold: Option<HoldSpec>,
    /// Shares of the pairs of every step that are drawn from earlier dimensions' pairs, such as `replay = { honesty = 0.2 }`,
    /// each with the loss and the reference of that dimension's round.
    pub replay: Option<BTreeMap<String, f64>>,
    /// With a list of dimensions and without `[lora] condition`: how their gradients become one.
    pub combine: Option<Combine>,
    /// Of `combine = "cagrad"`: how far from the weighted sum the combined gradient may be, as a share of its norm; 0 is the
    /// weighted sum. Default 0.4.
    #[schemars(range(min = 0))]
    pub cagrad_c: Option<f64>,
    /// Pairs that the round makes itself, of answers of the policy that it starts from.
    pub online: Option<OnlineSpec>,
    /// Overrides of `[training]`.
    #[serde(flatten)]
    pub training: TrainingSpec,
    /// Options of the objective. `lambda` of `spo` is one number, or a table with one number per earlier dimension.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

/// What stands before the prompts that a control learns from, in a run whose data have meta-prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MetaUse {
    /// The text that asks for what the row's label says.
    #[default]
    Own,
    /// A text drawn without regard to the label: nothing should follow it.
    Shuffled,
    /// No text: the labels of all dimensions mixed.
    None,
}

impl MetaUse {
    /// The dimension of such rows.
    pub fn dimension(self) -> &'static str {
        match self {
            Self::Own => ASKED,
            Self::Shuffled => ASKED_SHUFFLED,
            Self::None => ASKED_NOTHING,
        }
    }

    /// Whether it is what the round itself learns from.
    pub fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

/// One dimension, or several that are weighed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Dimensions {
    /// One.
    One(String),
    /// Several.
    Several(#[schemars(length(min = 1))] Vec<String>),
}

impl Default for Dimensions {
    fn default() -> Self {
        Self::One(String::new())
    }
}

impl Dimensions {
    /// Their names.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

/// A control arm: takes every setting of its round except the ones it sets itself. Objective options are
/// inherited only while the objective stays the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ControlSpec {
    /// Required. Name of the arm in reports and directories.
    pub name: String,
    /// Objective; default: the round's.
    pub objective: Option<String>,
    /// Most contexts of a user in the arm's training, in a run with `[steering]`; with 0 it learns the pairs of all users mixed,
    /// and knows nobody.
    pub contexts: Option<usize>,
    /// What stands before the prompts that the arm learns from, where the data have `meta-prompts`.
    pub meta_prompts: Option<MetaUse>,
    /// Other bounds than the round's; with a `lambda` of its own a control holds none.
    pub hold: Option<HoldSpec>,
    /// Other shares of earlier dimensions' pairs than the round's; `{}` is none.
    pub replay: Option<BTreeMap<String, f64>>,
    /// Another way than the round's to make one gradient of those of several dimensions.
    pub combine: Option<Combine>,
    /// Of `combine = "cagrad"`: how far from the weighted sum the combined gradient may be, as a share of its norm.
    #[schemars(range(min = 0))]
    pub cagrad_c: Option<f64>,
    /// Overrides of `[training]`.
    #[serde(flatten)]
    pub training: TrainingSpec,
    /// Options of the objective. `lambda` of `spo` is one number, or a table with one number per earlier dimension.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

/// How the gradients of several dimensions become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// Their weighted sum.
    #[default]
    Sum,
    /// CAGrad with clipped weights (RACO, arXiv 2602.02495): near the weighted sum, and as good for the dimension that it
    /// helps least as can be. One backward pass for each dimension's pairs.
    Cagrad,
}
