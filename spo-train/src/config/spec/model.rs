//! `[model]` and `[lora]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ModelSpec {
    /// Required. Model directory in the Hugging Face layout (config.json, safetensors, tokenizer.json), or a GGUF file; or a
    /// name on the Hugging Face Hub, `org/name` or `hf://org/name@revision`, where there is no such path; relative to the run file.
    pub path: PathBuf,
    /// Number format of the weights in memory. Losses and sums of log-probabilities are f32 or wider in every case. In `f16` the
    /// loss of a step is scaled, so that small gradients do not vanish, and anew with less where one overflows.
    pub dtype: Option<Dtype>,
    /// Where to compute: `auto`, `cpu`, `vulkan`, `metal`, `cuda:0`, …
    pub device: Option<String>,
    /// How a graphics card multiplies matrices: `auto`, `double-tma-mma`, `cublaslt`, …; `spo bench --what matmul` lists them and
    /// measures each. One that the card or the build does not have, or whose products are wrong there, is refused before the
    /// run; a product whose shape it does not take is computed as with `auto`. Attention of 16-bit weights multiplies by matrix units
    /// where the card has them and they gave what plain arithmetic gives, unless this is `simple-unit` or `double-unit`.
    pub matmul: Option<String>,
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
    /// Adapter directory in PEFT's format that the run starts from, of the rank, alpha and targets given here; relative to
    /// the run file. Without it adapters start fresh. The reference of the first round is the model with this adapter.
    pub start: Option<PathBuf>,
    /// Rank r of the two factors.
    #[schemars(range(min = 1))]
    pub rank: Option<usize>,
    /// Scale numerator (PEFT's `lora_alpha`): the update is multiplied by alpha / rank.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub alpha: Option<f64>,
    /// The projections to adapt: `all-linear`; a list of ends of module paths, `["q_proj", "layers.0.mlp.up_proj"]`,
    /// in which `*`, `?` and `[0-9]` stand for any characters; or one regular expression for whole module paths, such as
    /// `model.layers.0.self_attn.q_proj`.
    pub targets: Option<LoraTargets>,
    /// Scale by alpha / √rank instead (rank-stabilised LoRA, arXiv 2312.03732).
    pub rslora: Option<bool>,
    /// Also learn the length of each row of the adapted weights (DoRA, arXiv 2402.09353).
    pub dora: Option<bool>,
    /// Share of an adapter's inputs that is dropped while it is trained; a function of seed, step and row. With more than
    /// 0, the first loss of a round is not checked against the theory.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
    pub dropout: Option<f64>,
    /// Modules to train in full beside the adapters, e.g. `["lm_head", "norm"]`; kept in the adapter's files.
    pub modules_to_save: Option<Vec<String>>,
    /// What the adapter is conditioned on: `none`; the `weights` of the dimensions of a round that names several, and one run gives
    /// the whole front; or in a run with `[steering]` a user's `contexts` (docs/conditional.md). The update is `alpha / rank ·
    /// [B₁W₁A₁ + B₂(Σ w_k W₂,k)A₂]`, with a linear function of z in the place of w for contexts; `rank` is that of the second part,
    /// and the defaults are `rank = 4`, `alpha = 8`.
    pub condition: Option<LoraCondition>,
    /// With `condition`: rank of the first part, which all weights or contexts share.
    #[schemars(range(min = 1))]
    pub shared_rank: Option<usize>,
    /// With `condition = "contexts"`: how many matrices W₂,k are mixed.
    #[schemars(range(min = 2))]
    pub components: Option<usize>,
    /// With `condition = "weights"`: each step draws its weights from the Dirichlet distribution with this parameter for every
    /// dimension; below 1 the corners are likelier than the middle.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub concentration: Option<f64>,
    /// What a round does with the adapter it starts from: `continue` trains it further; `stack` freezes it and trains a
    /// fresh one on top. A policy's directory holds the sum, as one adapter on the model of `[model]`.
    pub rounds: Option<LoraRounds>,
    /// With `rounds = "stack"`: how many of the directions that the adapters of earlier rounds moved most, of each layer, a
    /// fresh one may not touch: after every step the part of `B` along the leading left singular vectors of their sum is
    /// taken out (after OrthAlign, arXiv 2509.24610; docs/rivals.md). 0 = none.
    pub project: Option<usize>,
    /// How the frozen weights of the projections are kept in memory: as numbers of `model.dtype`; quantised anew, in blocks of
    /// 64 values with 8 or 4 bits each; or `as-stored`: in the blocks of a GGUF file or of a GPTQ, AWQ, bitsandbytes 4-bit, FP8
    /// or MXFP4 checkpoint, or in the 16-bit floats of either. On the CPU they stay as they are, decoded a tile at a time to the
    /// numbers that loading would give; a graphics card keeps the codes of blocks, in 4 or 8 bits, with scales in f32, and 16-bit
    /// floats as numbers of `model.dtype`. The final merge goes into the weights of the file, as numbers.
    pub quantised_base: Option<QuantisedBase>,
}

/// What an adapter is conditioned on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoraCondition {
    /// Nothing.
    #[default]
    None,
    /// Weights of dimensions.
    Weights,
    /// A few labelled pairs of the user.
    Contexts,
}

/// What a round does with the adapter it starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoraRounds {
    /// Train it further.
    #[default]
    Continue,
    /// Freeze it and train a fresh one on top.
    Stack,
}

/// How frozen weights are kept in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum QuantisedBase {
    /// As `model.dtype` says.
    #[default]
    #[serde(rename = "none")]
    None,
    /// In blocks with 8 bits a value.
    #[serde(rename = "8-bit")]
    Eight,
    /// In blocks with 4 bits a value.
    #[serde(rename = "4-bit")]
    Four,
    /// In the blocks of the model's file.
    #[serde(rename = "as-stored")]
    AsStored,
}

/// Which linear layers get an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LoraTargets {
    /// A named set.
    Set(LoraSet),
    /// Names of projections, or globs.
    List(#[schemars(length(min = 1))] Vec<String>),
    /// A regular expression.
    Pattern(String),
}

/// A named set of linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoraSet {
    /// Every linear layer but the head.
    AllLinear,
}
