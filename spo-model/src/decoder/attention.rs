//! Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245): the projections. How tokens
//! see each other is the business of an [`Attend`].

use super::{Linear, RmsNorm, RopeTables};
use crate::load::WeightSource;
use crate::{ModelError, ModelSpec};
use burn::module::Module;
use burn::tensor::Tensor;

/// Mixes the tokens of a batch: packed training batches and the key-value cache differ here only.
pub trait Attend {
    /// Queries `[tokens, heads, head_dim]`, keys and values `[tokens, kv_heads, head_dim]`
    /// → `[tokens, heads · head_dim]`. `layer` counts from 0; `window` limits how far back a
    /// token sees.
    fn attend(&mut self, layer: usize, window: Option<usize>, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<2>;
}

/// Projections around the attention of one block.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[heads · head_dim, hidden]`
    pub q_proj: Linear,
    /// `[kv_heads · head_dim, hidden]`
    pub k_proj: Linear,
    /// `[kv_heads · head_dim, hidden]`
    pub v_proj: Linear,
    /// `[hidden, heads · head_dim]`
    pub o_proj: Linear,
    /// RMS norm of each query head.
    pub q_norm: Option<RmsNorm>,
    /// RMS norm of each key head.
    pub k_norm: Option<RmsNorm>,
    #[module(skip)]
    layer: usize,
    #[module(skip)]
    window: Option<usize>,
    #[module(skip)]
    head_dim: usize,
}

impl Attention {
    /// Takes the projections below `path` from the source.
    ///
    /// # Errors
    /// As the source.
    pub fn load(
        source: &mut impl WeightSource,
        path: &str,
        spec: &ModelSpec,
        layer: usize,
    ) -> Result<Self, ModelError> {
        let (hidden, q, kv) = (spec.hidden_size, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let mut linear = |name: &str, shape, bias| Linear::load(source, &format!("{path}.{name}"), shape, bias);
        let q_proj = linear("q_proj", [q, hidden], spec.qkv_bias)?;
        let k_proj = linear("k_proj", [kv, hidden], spec.qkv_bias)?;
        let v_proj = linear("v_proj", [kv, hidden], spec.qkv_bias)?;
        let o_proj = linear("o_proj", [hidden, q], spec.output_bias)?;
        let mut norm = |name: &str| match spec.qk_norm {
            true => RmsNorm::load(source, &format!("{path}.{name}"), spec.head_dim, spec.norm_eps).map(Some),
            false => Ok(None),
        };
        let (q_norm, k_norm) = (norm("q_norm")?, norm("k_norm")?);
        let window = spec.layers[layer].window;
        Ok(Self { q_proj, k_proj, v_proj, o_proj, q_norm, k_norm, layer, window, head_dim: spec.head_dim })
    }

    /// Rotated queries and keys, and values, of `[tokens, hidden]`: each `[tokens, heads, head_dim]`.
    pub fn project(&self, x: Tensor<2>, rope: &RopeTables) -> [Tensor<3>; 3] {
        let q = normed(&self.q_norm, self.heads(self.q_proj.forward(x.clone())));
        let k = normed(&self.k_norm, self.heads(self.k_proj.forward(x.clone())));
        let v = self.heads(self.v_proj.forward(x));
        [rope.rotate(q), rope.rotate(k), v]
    }

    /// Index of its block.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// How far back a token sees.
    pub fn window(&self) -> Option<usize> {
        self.window
    }

    fn heads(&self, x: Tensor<2>) -> Tensor<3> {
        let [tokens, width] = x.dims();
        x.reshape([tokens, width / self.head_dim, self.head_dim])
    }
}

fn normed(norm: &Option<RmsNorm>, x: Tensor<3>) -> Tensor<3> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
