//! What a decoder looks like, as data: the quirks of a family live here, not in copies of code.

mod rope;

pub use rope::{QueryGrowth, Rope, RopeScaling};
pub use spo_kernels::attention::AttentionSpec;

use crate::layout::Layout;
use spo_core::logprob::HeadOptions;

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
    /// Factor on the logits, applied to the final norm's output (Granite, Cohere 2); 1 for most.
    pub logit_scale: f64,
    /// Factor on what attention and feed-forward block add to the residual stream (Granite); 1 for most.
    pub residual_scale: f64,
    /// Each head has a learned score that takes its share of the softmax and gives nothing (gpt-oss).
    pub sinks: bool,
    /// Width of an input that each block gets of a token beside the residual stream (Gemma 4).
    pub layer_inputs: Option<usize>,
    /// A block's output is multiplied by a number of its own, which is no parameter (Gemma 4).
    pub layer_scalars: bool,
    /// The mixture of experts of the blocks that have one.
    pub experts: Option<ExpertsSpec>,
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
    /// Layer norm with a weight alone (Cohere 2).
    LayerUnbiased,
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
    /// One before both, which run in parallel on its output (Cohere 2).
    Shared,
}

impl NormPlacement {
    /// Whether attention and feed-forward block have a norm each before them, and whether they have one behind them.
    pub fn before_and_after(self) -> (bool, bool) {
        match self {
            Self::Before => (true, false),
            Self::After => (false, true),
            Self::Around => (true, true),
            Self::Shared => (false, false),
        }
    }
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
    /// Over the channels of each head, after the rotary embedding (Hunyuan).
    PerHeadRotated,
    /// Over the channels of each head, of the values too, whose norm has no weight (Gemma 4).
    PerHeadAndValues,
}

/// The form of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpKind {
    /// `down(act(gate(x)) · up(x))`
    Gated,
    /// The same, gate and up projection stacked in one weight (Phi 3).
    GatedFused,
    /// The same, the rows of gate and up projection taking turns in one weight (gpt-oss).
    GatedInterleaved,
    /// `down(act(up(x)))`
    Plain,
}

/// Activation of the feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x · σ(x)`
    Silu,
    /// `x · Φ(x)`, Φ being the normal distribution's.
    Gelu,
    /// The same with Φ approximated by a tanh.
    GeluTanh,
    /// xIELU (Huang & Schlag 2024, arXiv 2411.13010), whose two slopes are learned; of blocks without a gate.
    Xielu,
    /// `x · σ(alpha · x)` of a gate of at most `limit`, times 1 + an up projection within ± `limit` (gpt-oss); of gated blocks.
    Clamped {
        /// Steepness of the sigmoid.
        alpha: f64,
        /// Bound of gate and up projection.
        limit: f64,
    },
}

/// A mixture of experts: each token goes through the few feed-forward blocks that a router picks.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsSpec {
    /// How many there are.
    pub count: usize,
    /// How many a token goes through.
    pub active: usize,
    /// Width inside an expert.
    pub intermediate_size: usize,
    /// The form of an expert.
    pub mlp: MlpKind,
    /// Router and experts have biases.
    pub bias: bool,
    /// The weights of a token's experts sum to 1; without it they are their share among all experts.
    pub renormalised: bool,
    /// Width inside an expert that every token goes through too, times the sigmoid of a gate of its own (Qwen 2).
    pub shared: Option<usize>,
}

/// What may differ between the blocks of one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerSpec {
    /// How tokens see each other.
    pub attention: AttentionSpec,
    /// Which of [`ModelSpec::ropes`] rotates queries and keys; `None` leaves them as they are.
    pub rope: Option<usize>,
    /// The feed-forward block is a mixture of experts, of [`ModelSpec::experts`].
    pub experts: bool,
}

impl ModelSpec {
    /// The model with these experts in the blocks that `sparse` picks by index.
    #[must_use]
    pub fn with_experts(mut self, experts: ExpertsSpec, sparse: impl Fn(usize) -> bool) -> Self {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.experts = sparse(index);
        }
        self.experts = Some(experts);
        self
    }

    /// The head's options with what the family asks of the logits.
    pub fn head(&self, options: &HeadOptions) -> HeadOptions {
        HeadOptions { softcap: self.logit_softcap, ..options.clone() }
    }

    /// Parameters of the model, tied ones counted once.
    pub fn parameters(&self) -> usize {
        let h = self.hidden_size;
        let blocks: usize = (0..self.layers.len()).map(|layer| self.block_parameters(layer, false)).sum();
        let layer_inputs =
            self.layer_inputs.map_or(0, |width| self.layers.len() * width * h + self.norm_parameters(width));
        self.table_parameters() + layer_inputs + blocks + self.norm_parameters(h)
    }

    /// Those of the head and of the tables that tokens and positions are looked up in.
    pub(crate) fn table_parameters(&self) -> usize {
        let positions = if self.learned_positions { self.context } else { 0 };
        let layer_inputs = self.vocab_size * self.layers.len() * self.layer_inputs.unwrap_or(0);
        self.hidden_size * (self.vocab_size * if self.tied { 1 } else { 2 } + positions) + layer_inputs
    }

    /// Parameters that a token goes through: of a mixture of experts those of its own experts.
    pub fn active_parameters(&self) -> usize {
        let idle = |layer| self.block_parameters(layer, false) - self.block_parameters(layer, true);
        self.parameters() - (0..self.layers.len()).map(idle).sum::<usize>()
    }

    /// Parameters of a block; `active`: those that one token goes through.
    pub fn block_parameters(&self, layer: usize, active: bool) -> usize {
        let (h, q, kv) = (self.hidden_size, self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let on = |wanted: bool, n: usize| if wanted { n } else { 0 };
        let qk_norms = match self.qk_norm {
            QkNorm::None => 0,
            QkNorm::PerHead | QkNorm::PerHeadRotated | QkNorm::PerHeadAndValues => {
                2 * self.norm_parameters(self.head_dim)
            }
            QkNorm::Whole => self.norm_parameters(q) + self.norm_parameters(kv),
        };
        let attention = h * (q + 2 * kv) + q * h + on(self.qkv_bias, q + 2 * kv) + on(self.output_bias, h);
        let norms = match self.norm_placement {
            NormPlacement::Around => 4,
            NormPlacement::Before | NormPlacement::After => 2,
            NormPlacement::Shared => 1,
        };
        let norms = norms * self.norm_parameters(h) + qk_norms;
        let layer_input = self.layer_inputs.map_or(0, |width| 2 * width * h + self.norm_parameters(h));
        let others = on(self.sinks, self.heads) + on(self.layer_scalars, 1) + layer_input;
        attention + norms + others + self.feed_forward_parameters(layer, active)
    }

    /// Those of its feed-forward block.
    pub(crate) fn feed_forward_parameters(&self, layer: usize, active: bool) -> usize {
        let h = self.hidden_size;
        let one = |kind: MlpKind, inner: usize, bias: bool| {
            let stacked = inner * if kind == MlpKind::Plain { 1 } else { 2 };
            h * (stacked + inner) + if bias { stacked + h } else { 0 }
        };
        match self.experts.as_ref().filter(|_| self.layers[layer].experts) {
            None => {
                let slopes = if self.activation == Activation::Xielu { 4 } else { 0 };
                one(self.mlp, self.intermediate_size, self.mlp_bias) + slopes
            }
            Some(experts) => {
                let router = experts.count * (h + usize::from(experts.bias));
                let shared = experts.shared.map_or(0, |inner| one(MlpKind::Gated, inner, false) + h);
                let each = if active { experts.active } else { experts.count };
                router + shared + each * one(experts.mlp, experts.intermediate_size, experts.bias)
            }
        }
    }

    fn norm_parameters(&self, channels: usize) -> usize {
        channels * if self.norm == NormKind::Layer { 2 } else { 1 }
    }
}
