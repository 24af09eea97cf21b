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
        let [q, k, v] = self.before_attention(x.clone(), rope);
        let y = attend.attend(self.self_attn.layer(), self.self_attn.window(), q, k, v);
        self.after_attention(x, y)
    }

    /// What the tokens of a block's input `[tokens, hidden]` bring to the attention: queries, keys
    /// and values.
    pub fn before_attention(&self, x: Tensor<2>, rope: &RopeTables) -> [Tensor<3>; 3] {
        self.self_attn.project(self.input_layernorm.forward(x), rope)
    }

    /// The block's output from its input `[tokens, hidden]` and its attention's result
    /// `[tokens, heads · head_dim]`.
    pub fn after_attention(&self, x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        let x = x + self.self_attn.o_proj.forward(y);
        x.clone() + self.mlp.forward(self.post_attention_layernorm.forward(x))
    }
}
