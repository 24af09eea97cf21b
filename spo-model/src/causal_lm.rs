//! The model: embedding, decoder blocks, final norm, head.

use crate::decoder::{Attend, Block, Embedding, Linear, Norm, PackedInputs, RandomSource, RopeTables, WeightSource};
use crate::encoder::Steering;
use crate::layer_inputs::{Embedded, LayerInputs, OwnInputs};
use crate::parameters::replace;
use crate::score_head::ScoreHead;
use crate::storage::Storage;
use crate::{ModelError, ModelSpec};
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor};
use half::{bf16, f16};

/// A decoder-only language model that returns hidden states.
///
/// It lives without gradients; whoever trains it switches them on, block by block.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// Token embedding.
    pub embed_tokens: Embedding,
    /// Embedding of positions, where they are learned.
    pub embed_positions: Option<Embedding>,
    /// Makes inputs of the blocks' own, where they have any.
    pub layer_inputs: Option<LayerInputs>,
    /// Decoder blocks, first to last.
    pub layers: Vec<Block>,
    /// Final norm.
    pub norm: Norm,
    /// Head of its own; `None` when it shares the embedding's weight.
    pub lm_head: Option<Linear>,
    /// Gives a text a number instead, in a reward model.
    pub score: Option<ScoreHead>,
    /// Makes it one policy for many users.
    pub steering: Option<Steering>,
    #[module(skip)]
    spec: ModelSpec,
}

impl CausalLm {
    /// Builds a model of this spec from a source of weights.
    ///
    /// # Errors
    /// As the source: missing tensor, wrong shape, unreadable type.
    pub fn load(spec: &ModelSpec, source: &mut impl WeightSource) -> Result<Self, ModelError> {
        let table = [spec.vocab_size, spec.hidden_size];
        let embed_tokens = Embedding { weight: Param::from_tensor(source.tensor("embed_tokens.weight", table)?) };
        let embed_positions = match spec.learned_positions {
            true => {
                let shape = [spec.context, spec.hidden_size];
                Some(Embedding { weight: Param::from_tensor(source.tensor("embed_positions.weight", shape)?) })
            }
            false => None,
        };
        let layer_inputs = match spec.layer_inputs {
            Some(width) => Some(LayerInputs::load(source, spec, width)?),
            None => None,
        };
        let layers = (0..spec.layers.len()).map(|layer| Block::load(source, spec, layer));
        let layers = layers.collect::<Result<_, _>>()?;
        let norm = Norm::load(source, "norm", spec.hidden_size, spec)?.scaled(spec.logit_scale);
        let lm_head = match spec.tied {
            true => None,
            false => Some(Linear::load(source, "lm_head", table, false)?),
        };
        Ok(Self {
            embed_tokens,
            embed_positions,
            layer_inputs,
            layers,
            norm,
            lm_head,
            score: None,
            steering: None,
            spec: spec.clone(),
        })
    }

    /// A model with random weights, N(0, 0.02), norms at 1: for tests and benchmarks.
    pub fn random(spec: &ModelSpec, seed: u64, device: &Device) -> Self {
        Self::load(spec, &mut RandomSource::new(seed, device)).expect("a random source has every tensor")
    }

    /// The shape of the model.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.embed_tokens.weight.val().device()
    }

    /// The model with all weights in this storage type.
    pub fn stored_as(self, storage: Storage) -> Self {
        replace(self, "", |parameter| parameter.value.cast(storage.dtype()))
    }

    /// Storage and compute type.
    pub fn dtype(&self) -> DType {
        self.embed_tokens.weight.val().dtype()
    }

    /// What goes into the blocks, of token ids and their positions, each `[tokens]`.
    pub fn embed(&self, ids: Tensor<1, Int>, positions: Tensor<1, Int>) -> Embedded {
        let mut x = self.embed_tokens.weight.val().select(0, ids.clone());
        if let Some(scale) = self.embedding_scale() {
            x = x * scale;
        }
        if let Some(table) = &self.embed_positions {
            x = x + table.weight.val().select(0, positions);
        }
        let own = self.layer_inputs.as_ref().map(|inputs| inputs.forward(x.clone(), self.layer_rows(inputs, ids)));
        Embedded { x, own: OwnInputs(own) }
    }

    /// What the table of the blocks' own inputs says of tokens `[tokens]`, `[tokens, layers · width]`.
    pub fn layer_rows(&self, inputs: &LayerInputs, ids: Tensor<1, Int>) -> Tensor<2> {
        inputs.table.weight.val().select(0, ids) * self.rounded(inputs.scale())
    }

    /// What embedded tokens are multiplied by, in the model's precision.
    pub fn embedding_scale(&self) -> Option<f64> {
        self.spec.embedding_scale.map(|scale| self.rounded(scale))
    }

    /// A factor in the model's precision.
    pub fn rounded(&self, factor: f64) -> f64 {
        match self.dtype() {
            DType::BF16 => bf16::from_f64(factor).to_f64(),
            DType::F16 => f16::from_f64(factor).to_f64(),
            DType::F32 => f64::from(factor as f32),
            _ => factor,
        }
    }

    /// All blocks, before the final norm: `[tokens, hidden]`.
    pub fn blocks(&self, Embedded { x, own }: Embedded, rope: &RopeTables, attend: &mut dyn Attend) -> Tensor<2> {
        through(&self.layers, x, &own, rope, attend)
    }

    /// Normed hidden states of the rows that predict an answer token, and behind them of those that a score head reads,
    /// `[rows, hidden]`.
    pub fn hidden(&self, inputs: &PackedInputs) -> Tensor<2> {
        let Embedded { x, own } = self.embed(inputs.ids.clone(), inputs.positions.clone());
        let (rope, mut attend, rows) = (&inputs.rope, inputs.attention(), inputs.score_rows.clone());
        let x = match self.layers.split_last() {
            Some((last, others)) if self.ends_in_rows() => {
                let x = through(others, x, &own, rope, &mut attend);
                last.forward_rows(x, own.of(others.len()), rope, &mut attend, rows)
            }
            _ => through(&self.layers, x, &own, rope, &mut attend).select(0, rows),
        };
        self.norm.forward(x)
    }

    /// Whether the last block may run on the rows that are scored alone, beyond its attention. What dropout drops is told
    /// by token, so it needs all of them.
    pub fn ends_in_rows(&self) -> bool {
        !self.layers.is_empty() && !self.has_dropout()
    }

    /// Without a head for tokens, in whose place the embedding's table stands: for a reward model that writes nothing.
    #[must_use]
    pub fn without_lm_head(mut self) -> Self {
        self.lm_head = None;
        self.spec.tied = true;
        self
    }

    /// Without a score head.
    #[must_use]
    pub fn without_score_head(mut self) -> Self {
        self.score = None;
        self
    }

    /// All logits `[rows, vocab]` of normed hidden states `[rows, hidden]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let logits = hidden.matmul(self.head_weight().transpose());
        match self.spec.logit_softcap {
            Some(cap) => (logits * cap.recip()).tanh() * cap,
            None => logits,
        }
    }

    /// The head's weight, `[vocab, hidden]`.
    pub fn head_weight(&self) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.dense(),
            None => self.embed_tokens.weight.val(),
        }
    }
}

/// The first blocks of a model, one after the other. `[tokens, hidden]` → `[tokens, hidden]`
fn through(blocks: &[Block], x: Tensor<2>, own: &OwnInputs, rope: &RopeTables, attend: &mut dyn Attend) -> Tensor<2> {
    blocks.iter().enumerate().fold(x, |x, (layer, block)| block.forward(x, own.of(layer), rope, attend))
}
