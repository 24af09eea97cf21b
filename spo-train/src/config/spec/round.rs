//! `[[rounds]]` and `[[rounds.controls]]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{GateSpec, HoldSpec, OnlineSpec, TrainingSpec};

/// One round: train on the pairs of one dimension, starting from the policy the round before ended with.
/// Also takes every key of `[training]` and every option of its objective.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RoundSpec {
    /// Required. The preference dimension whose pairs are trained on.
    pub dimension: String,
    /// Name in reports and directories; default `round-N-DIMENSION`.
    pub name: Option<String>,
    /// Objective; default `dpo` in the first round, `spo` in later ones. `spo list objectives` shows all.
    pub objective: Option<String>,
    /// The same round trained again from the same start with other settings, for comparison; never carried on.
    pub controls: Option<Vec<ControlSpec>>,
    /// What the round's policy must reach.
    pub gate: Option<GateSpec>,
    /// What the round may cost earlier dimensions, in place of their `lambda`.
    pub hold: Option<HoldSpec>,
    /// Pairs that the round makes itself, of answers of the policy that it starts from.
    pub online: Option<OnlineSpec>,
    /// Overrides of `[training]`.
    #[serde(flatten)]
    pub training: TrainingSpec,
    /// Options of the objective. `lambda` of `spo` is one number, or a table with one number per earlier dimension.
    #[serde(flatten)]
    pub options: Map<String, Value>,
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
    /// Other bounds than the round's; with a `lambda` of its own a control holds none.
    pub hold: Option<HoldSpec>,
    /// Overrides of `[training]`.
    #[serde(flatten)]
    pub training: TrainingSpec,
    /// Options of the objective. `lambda` of `spo` is one number, or a table with one number per earlier dimension.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}
