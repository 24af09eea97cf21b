//! One decoder block.

use super::{Attend, Attention, Mlp, RmsNorm, RopeTables};
use crate::load::WeightSource;
use crate::{ModelError, ModelSpec};
use burn::module::Module;
use burn::tensor::Tensor;

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
pub struct Block {
    /// Before the attention.
    pub input_layernorm: RmsNorm,
    /// Attention with its projections.
    pub self_attn: Attention,
    /// Before the feed-forward block.
    pub post_attention_layernorm: RmsNorm,
    /// Feed-forward block.
    pub mlp: Mlp,
}

impl Block {
    /// Takes the block `layers.{layer}` from the source.
    ///
    /// # Errors
    /// As the source.
    pub fn load(source: &mut impl WeightSource, spec: &ModelSpec, layer: usize) -> Result<Self, ModelError> {
        let path = |name: &str| format!("layers.{layer}.{name}");
        let (hidden, epsilon) = (spec.hidden_size, spec.norm_eps);
        Ok(Self {
            input_layernorm: RmsNorm::load(source, &path("input_layernorm"), hidden, epsilon)?,
            self_attn: Attention::load(source, &path("self_attn"), spec, layer)?,
            post_attention_layernorm: RmsNorm::load(source, &path("post_attention_layernorm"), hidden, epsilon)?,
            mlp: Mlp::load(source, &path("mlp"), spec)?,
        })
    }

    /// `[tokens, hidden]` → `[tokens, hidden]`
    pub fn forward(&self, x: Tensor<2>, rope: &RopeTables, attend: &mut dyn Attend) -> Tensor<2> {
        let x = x.clone() + self.self_attn.forward(self.input_layernorm.forward(x), rope, attend);
        x.clone() + self.mlp.forward(self.post_attention_layernorm.forward(x))
    }
}
