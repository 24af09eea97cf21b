//! What a decoder looks like, as data: the quirks of a family live here, not in copies of code.

mod rope;

pub use rope::{Rope, RopeScaling};
pub use spo_kernels::attention::AttentionSpec;

use crate::layout::Layout;
use crate::{ModelError, family};
use spo_core::logprob::HeadOptions;
use std::path::Path;

/// The shape and the quirks of a causal language model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Name of the family, as in `model_type`.
    pub family: &'static str,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides [`heads`](Self::heads).
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Longest sequence the model was made for, in tokens.
    pub context: usize,
    /// What the norms compute.
    pub norm: NormKind,
    /// ε of the norms.
    pub norm_eps: f64,
    /// Where a block's norms stand.
    pub norm_placement: NormPlacement,
    /// Attention and feed-forward block both read the block's input (GPT-NeoX).
    pub parallel: bool,
    /// The head shares the embedding's weight.
    pub tied: bool,
    /// How the query, key and value projections are stored.
    pub qkv: QkvLayout,
    /// Query, key and value projections have a bias.
    pub qkv_bias: bool,
    /// The attention's output projection has a bias.
    pub output_bias: bool,
    /// The feed-forward projections have a bias.
    pub mlp_bias: bool,
    /// Norm of queries and keys before the rotary embedding.
    pub qk_norm: QkNorm,
    /// The form of the feed-forward block.
    pub mlp: MlpKind,
    /// Its activation.
    pub activation: Activation,
    /// Embedded tokens are multiplied by this (Gemma's `√hidden_size`), rounded to the storage type.
    pub embedding_scale: Option<f64>,
    /// Positions have an embedding table of their own, `[context, hidden]`, added to the tokens'.
    pub learned_positions: bool,
    /// Bound of the logits (Gemma 2's `final_logit_softcapping`).
    pub logit_softcap: Option<f64>,
    /// Rotary embeddings that the blocks use.
    pub ropes: Vec<Rope>,
    /// One entry per decoder block.
    pub layers: Vec<LayerSpec>,
    /// Names and layout of the checkpoint.
    pub layout: &'static Layout,
    /// Token ids that end a response, from `config.json` (`generation_config.json` may add more).
    pub eos: Vec<u32>,
}

/// What a norm computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// RMS norm times its weight.
    Rms,
    /// RMS norm times 1 + its weight (Gemma).
    RmsFromOne,
    /// Layer norm with weight and bias.
    Layer,
}

/// Where the norms of a block stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before attention and feed-forward block.
    Before,
    /// On what they add to the residual stream (OLMo 2).
    After,
    /// Both (Gemma 2 and 3).
    Around,
}

/// How the query, key and value projections are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkvLayout {
    /// Three weights.
    Separate,
    /// One weight: all queries, then all keys, then all values.
    Stacked,
    /// One weight: for each head its query, key and value.
    PerHead,
}

/// Norm of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// Over the channels of each head (Qwen 3, Gemma 3).
    PerHead,
    /// Over all heads together (OLMo 2).
    Whole,
}

/// The form of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpKind {
    /// `down(act(gate(x)) · up(x))`
    Gated,
    /// The same, gate and up projection stacked in one weight (Phi 3).
    GatedFused,
    /// `down(act(up(x)))`
    Plain,
}

/// Activation of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · σ(x)`
    Silu,
    /// `x · Φ(x)`, Φ being the normal distribution's.
    Gelu,
    /// The same with Φ approximated by a tanh.
    GeluTanh,
}

/// What may differ between the blocks of one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerSpec {
    /// How tokens see each other.
    pub attention: AttentionSpec,
    /// Which of [`ModelSpec::ropes`] rotates queries and keys; `None` leaves them as they are.
    pub rope: Option<usize>,
}

impl ModelSpec {
    /// Reads the shape of a model: `config.json` of a directory, or the metadata of a GGUF file.
    ///
    /// # Errors
    /// A missing directory or file, unusable JSON, an unknown or refused `model_type`, a missing or inconsistent key; a
    /// GGUF file that is damaged or has keys that are not known here.
    pub fn from_path(path: &Path) -> Result<Self, ModelError> {
        family::Registry::builtin().spec(path)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// As [`from_path`](Self::from_path).
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        family::Registry::builtin().spec_from_json(text)
    }

    /// The head's options with what the family asks of the logits.
    pub fn head(&self, options: &HeadOptions) -> HeadOptions {
        HeadOptions { softcap: self.logit_softcap, ..options.clone() }
    }

    /// Parameters of the model, tied ones counted once.
    pub fn parameters(&self) -> usize {
        let (h, q, kv) = (self.hidden_size, self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let on = |wanted: bool, n: usize| if wanted { n } else { 0 };
        let norm = |channels: usize| channels * if self.norm == NormKind::Layer { 2 } else { 1 };
        let qk_norms = match self.qk_norm {
            QkNorm::None => 0,
            QkNorm::PerHead => 2 * norm(self.head_dim),
            QkNorm::Whole => norm(q) + norm(kv),
        };
        let attention = h * (q + 2 * kv) + q * h + on(self.qkv_bias, q + 2 * kv) + on(self.output_bias, h) + qk_norms;
        let inner = self.intermediate_size * if self.mlp == MlpKind::Plain { 1 } else { 2 };
        let mlp = h * (inner + self.intermediate_size) + on(self.mlp_bias, inner + h);
        let norms = norm(h) * if self.norm_placement == NormPlacement::Around { 4 } else { 2 };
        let embeddings =
            h * (self.vocab_size * if self.tied { 1 } else { 2 } + on(self.learned_positions, self.context));
        embeddings + self.layers.len() * (attention + mlp + norms) + norm(h)
    }
}
