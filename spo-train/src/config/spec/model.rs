//! `[model]` and `[lora]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ModelSpec {
    /// Required. Model directory in the Hugging Face layout (config.json, safetensors, tokenizer.json); relative to the run file.
    pub path: PathBuf,
    /// Number format of the weights in memory. Losses and sums of log-probabilities are f32 or wider in every case.
    pub dtype: Option<Dtype>,
    /// Where to compute: `auto`, `cpu`, `vulkan`, `metal`, `cuda:0`, …
    pub device: Option<String>,
}

/// Number format of weights in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// 32-bit IEEE float.
    F32,
    /// 16-bit brain float.
    Bf16,
    /// 16-bit IEEE float.
    F16,
}

/// `[lora]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LoraSpec {
    /// Rank r of the two factors.
    #[schemars(range(min = 1))]
    pub rank: Option<usize>,
    /// Scale numerator (PEFT's `lora_alpha`): the update is multiplied by alpha / rank.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub alpha: Option<f64>,
    /// `all-linear`, or the names of the projections to adapt, e.g. `["q_proj", "v_proj"]`.
    pub targets: Option<LoraTargets>,
    /// Scale by alpha / √rank instead (rank-stabilised LoRA, arXiv 2312.03732).
    pub rslora: Option<bool>,
}

/// Which linear layers get an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LoraTargets {
    /// A named set.
    Set(LoraSet),
    /// Names of projections.
    List(#[schemars(length(min = 1))] Vec<String>),
}

/// A named set of linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoraSet {
    /// Every linear layer but the head.
    AllLinear,
}
