//! Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245): the projections. How tokens
//! see each other is the business of an [`Attend`].

use super::block::normed;
use super::norm::unit_norm;
use super::source::WeightSource;
use super::{Linear, Norm, RopeTables};
use crate::spec::{AttentionSpec, LayerSpec, QkNorm, QkvLayout};
use crate::{ModelError, ModelSpec};
use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// Mixes the tokens of a batch: packed training batches and the key-value cache differ here only.
pub trait Attend {
    /// Queries `[tokens, heads, head_dim]`, keys and values `[tokens, kv_heads, head_dim]`
    /// → `[tokens, heads · head_dim]`. `layer` counts from 0; `sinks`, `[heads]`, are those of its heads, if it has any.
    fn attend(&mut self, layer: usize, spec: AttentionSpec, qkv: [Tensor<3>; 3], sinks: Option<Tensor<1>>)
    -> Tensor<2>;
}

/// Projections around the attention of one block.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[heads · head_dim, hidden]`
    pub q_proj: Option<Linear>,
    /// `[kv_heads · head_dim, hidden]`
    pub k_proj: Option<Linear>,
    /// `[kv_heads · head_dim, hidden]`
    pub v_proj: Option<Linear>,
    /// Queries, keys and values from one weight `[(heads + 2 · kv_heads) · head_dim, hidden]`,
    /// instead of the three.
    pub qkv_proj: Option<Linear>,
    /// `[hidden, heads · head_dim]`
    pub o_proj: Linear,
    /// Norm of the queries.
    pub q_norm: Option<Norm>,
    /// Norm of the keys.
    pub k_norm: Option<Norm>,
    /// Scores that take their share of each head's softmax, `[heads]`.
    pub sinks: Option<Param<Tensor<1>>>,
    #[module(skip)]
    layer: usize,
    #[module(skip)]
    shape: Shape,
}

/// What the projections need to know of the model.
#[derive(Debug, Clone, Copy)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    qkv: QkvLayout,
    qk_norm: QkNorm,
    norm_eps: f64,
    layer: LayerSpec,
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
        let (mut q_proj, mut k_proj, mut v_proj, mut qkv_proj) = (None, None, None, None);
        match spec.qkv {
            QkvLayout::Separate => {
                q_proj = Some(linear("q_proj", [q, hidden], spec.qkv_bias)?);
                k_proj = Some(linear("k_proj", [kv, hidden], spec.qkv_bias)?);
                v_proj = Some(linear("v_proj", [kv, hidden], spec.qkv_bias)?);
            }
            _ => qkv_proj = Some(linear("qkv_proj", [q + 2 * kv, hidden], spec.qkv_bias)?),
        }
        let o_proj = linear("o_proj", [hidden, q], spec.output_bias)?;
        let mut norm = |name: &str, width| match spec.qk_norm {
            QkNorm::None => Ok(None),
            QkNorm::PerHead | QkNorm::PerHeadRotated | QkNorm::PerHeadAndValues => {
                Norm::load(source, &format!("{path}.{name}"), spec.head_dim, spec).map(Some)
            }
            QkNorm::Whole => Norm::load(source, &format!("{path}.{name}"), width, spec).map(Some),
        };
        let (q_norm, k_norm) = (norm("q_norm", q)?, norm("k_norm", kv)?);
        let sinks = match spec.sinks {
            true => Some(Param::from_tensor(source.tensor(&format!("{path}.sinks"), [spec.heads])?)),
            false => None,
        };
        let shape = Shape {
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            qkv: spec.qkv,
            qk_norm: spec.qk_norm,
            norm_eps: spec.norm_eps,
            layer: spec.layers[layer],
        };
        Ok(Self { q_proj, k_proj, v_proj, qkv_proj, o_proj, q_norm, k_norm, sinks, layer, shape })
    }

    /// Rotated queries and keys, and values, of `[tokens, hidden]`: each `[tokens, heads, head_dim]`.
    pub fn project(&self, x: Tensor<2>, rope: &RopeTables) -> [Tensor<3>; 3] {
        let [q, k, v] = self.separate(x);
        let normed = |q, k| (self.norm_heads(&self.q_norm, q), self.norm_heads(&self.k_norm, k));
        let rotated = |q, k| match self.shape.layer.rope {
            Some(table) => (rope.rotate_queries(table, q), rope.rotate(table, k)),
            None => (q, k),
        };
        let (q, k) = match self.shape.qk_norm {
            QkNorm::PerHeadRotated => {
                let (q, k) = rotated(q, k);
                normed(q, k)
            }
            _ => {
                let (q, k) = normed(q, k);
                rotated(q, k)
            }
        };
        let v = match self.shape.qk_norm {
            QkNorm::PerHeadAndValues => unit_norm(v, self.shape.norm_eps),
            _ => v,
        };
        [q, k, v]
    }

    /// Queries, keys and values, each `[tokens, heads, head_dim]`.
    fn separate(&self, x: Tensor<2>) -> [Tensor<3>; 3] {
        let Shape { heads, kv_heads, head_dim, qkv, .. } = self.shape;
        let Some(all) = &self.qkv_proj else {
            let project = |linear: &Option<Linear>| {
                let linear = linear.as_ref().expect("there are three where none is fused");
                self.heads(linear.forward(x.clone()))
            };
            return [&self.q_proj, &self.k_proj, &self.v_proj].map(project);
        };
        let all = all.forward(x);
        match qkv {
            QkvLayout::PerHead => {
                let tokens = all.dims()[0];
                let all = all.reshape([tokens, heads, 3 * head_dim]);
                [0, 1, 2].map(|part| all.clone().narrow(2, part * head_dim, head_dim))
            }
            _ => {
                let (q, kv) = (heads * head_dim, kv_heads * head_dim);
                [(0, q), (q, kv), (q + kv, kv)].map(|(start, width)| self.heads(all.clone().narrow(1, start, width)))
            }
        }
    }

    fn norm_heads(&self, norm: &Option<Norm>, x: Tensor<3>) -> Tensor<3> {
        match self.shape.qk_norm {
            QkNorm::Whole => {
                let [tokens, heads, dim] = x.dims();
                self.heads(normed(norm, x.reshape([tokens, heads * dim])))
            }
            _ => normed(norm, x),
        }
    }

    /// The scores that take their share of each head's softmax, `[heads]`.
    pub fn sink_scores(&self) -> Option<Tensor<1>> {
        self.sinks.as_ref().map(Param::val)
    }

    /// Index of its block.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// How its tokens see each other.
    pub fn spec(&self) -> AttentionSpec {
        self.shape.layer.attention
    }

    /// Its linear layers with their names.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Linear)> {
        [
            ("q_proj", self.q_proj.as_mut()),
            ("k_proj", self.k_proj.as_mut()),
            ("v_proj", self.v_proj.as_mut()),
            ("qkv_proj", self.qkv_proj.as_mut()),
            ("o_proj", Some(&mut self.o_proj)),
        ]
        .into_iter()
        .filter_map(|(name, linear)| Some((name, linear?)))
    }

    fn heads(&self, x: Tensor<2>) -> Tensor<3> {
        let [tokens, width] = x.dims();
        x.reshape([tokens, width / self.shape.head_dim, self.shape.head_dim])
    }
}
