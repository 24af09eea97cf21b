//! A linear layer in the checkpoint's own layout, with optional adapters on the activation path.

use super::adapter::LoraAdapter;
use super::blocks::{BlockBits, BlockWeight};
use super::kept::{KeptWeight, StoredWeight};
use super::source::WeightSource;
use crate::ModelError;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use spo_kernels::bias::add_bias;
use spo_kernels::linear::linear;

/// `y = x Wᵀ + b`, and what the adapters make of it.
///
/// The weight keeps the checkpoint's `[out, in]` layout, so that loading and saving copy bytes. It is
/// dense, quantised, or in the blocks of its file.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`; `None` where the weight is in blocks.
    pub weight: Option<Param<Tensor<2>>>,
    /// The quantised weight.
    pub blocks: Option<BlockWeight>,
    /// The weight in the blocks of its file.
    pub kept: Option<KeptWeight>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// Adapter that an earlier round left, below the trained one.
    pub frozen: Option<LoraAdapter>,
    /// Low-rank adapter.
    pub lora: Option<LoraAdapter>,
}

impl Linear {
    /// Takes `{path}.weight` and, if `bias`, `{path}.bias` from the source.
    ///
    /// # Errors
    /// As the source: missing tensor, wrong shape, unreadable type.
    pub fn load(source: &mut impl WeightSource, path: &str, shape: [usize; 2], bias: bool) -> Result<Self, ModelError> {
        // The head is read in chunks of its own.
        let (of_blocks, name) = (path != "lm_head", format!("{path}.weight"));
        let kept = if of_blocks { source.kept(&name, shape)? } else { None };
        let (weight, blocks, kept) = match kept {
            Some(StoredWeight::Host(kept)) => (None, None, Some(kept)),
            Some(StoredWeight::Card(blocks)) => (None, Some(blocks), None),
            None => (Some(Param::from_tensor(source.tensor(&name, shape)?)), None, None),
        };
        let bias = match bias {
            true => Some(Param::from_tensor(source.tensor(&format!("{path}.bias"), [shape[0]])?)),
            false => None,
        };
        let linear = Self { weight, blocks, kept, bias, frozen: None, lora: None };
        Ok(match source.blocks().filter(|_| of_blocks) {
            Some(bits) => linear.quantised(bits),
            None => linear,
        })
    }

    /// A layer without adapters of this weight `[out, in]` and bias `[out]`.
    pub fn new(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        let bias = bias.map(Param::from_tensor);
        Self { weight: Some(Param::from_tensor(weight)), blocks: None, kept: None, bias, frozen: None, lora: None }
    }

    /// The layer with its weight quantised.
    pub fn quantised(mut self, bits: BlockBits) -> Self {
        if let Some(weight) = self.weight.take() {
            self.blocks = Some(BlockWeight::new(weight.val(), bits));
        }
        self
    }

    /// The weight `[out, in]`: the one there is, or the one that blocks stand for, in f32.
    pub fn dense(&self) -> Tensor<2> {
        match (&self.weight, &self.blocks, &self.kept) {
            (Some(weight), ..) => weight.val(),
            (None, Some(blocks), _) => blocks.dense(),
            (None, None, Some(kept)) => kept.dense(),
            (None, None, None) => unreachable!("a layer has a weight"),
        }
    }

    /// `[out, in]`
    pub fn dims(&self) -> [usize; 2] {
        match (&self.weight, &self.blocks, &self.kept) {
            (Some(weight), ..) => weight.val().dims(),
            (None, Some(blocks), _) => blocks.dims(),
            (None, None, Some(kept)) => kept.dims(),
            (None, None, None) => unreachable!("a layer has a weight"),
        }
    }

    /// `[tokens, in]` → `[tokens, out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let below = |x: Tensor<2>| match &self.frozen {
            Some(frozen) => frozen.forward(x, &|x| self.base(x)),
            None => self.base(x),
        };
        let y = match &self.lora {
            Some(lora) => lora.forward(x, &below),
            None => below(x),
        };
        match &self.bias {
            Some(bias) => add_bias(y, bias.val()),
            None => y,
        }
    }

    /// `x Wᵀ`: `[tokens, in]` → `[tokens, out]`
    fn base(&self, x: Tensor<2>) -> Tensor<2> {
        match (&self.blocks, &self.kept) {
            (Some(blocks), _) => blocks.product(x),
            (None, Some(kept)) => kept.product(x),
            (None, None) => linear(x, self.dense()),
        }
    }
}
