//! One decoder block.

use super::film::{Film, TokenZ};
use super::norm::scaled;
use super::source::WeightSource;
use super::{Attend, Attention, Experts, LayerInput, Linear, Mlp, MlpShape, Norm, RopeTables};
use crate::spec::NormPlacement;
use crate::{ModelError, ModelSpec};
use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`; norms before, after or around each part,
/// and both parts from the same `x` where a family runs them in parallel.
#[derive(Module, Debug)]
pub struct Block {
    /// Before the attention.
    pub input_layernorm: Option<Norm>,
    /// Attention with its projections.
    pub self_attn: Attention,
    /// On the attention's output.
    pub post_attention_layernorm: Option<Norm>,
    /// Before the feed-forward block.
    pub pre_feedforward_layernorm: Option<Norm>,
    /// Feed-forward block.
    pub mlp: Option<Mlp>,
    /// Mixture of experts in its place.
    pub moe: Option<Experts>,
    /// On the feed-forward block's output.
    pub post_feedforward_layernorm: Option<Norm>,
    /// What an input of the block's own adds.
    pub layer_input: Option<LayerInput>,
    /// Factor on the block's output, `[1]`.
    pub layer_scalar: Option<Param<Tensor<1>>>,
    /// On the block's output, in a policy for many users.
    pub film: Option<Film>,
    #[module(skip)]
    parallel: bool,
    /// Factor on what both parts add.
    #[module(skip)]
    residual_scale: f64,
}

impl Block {
    /// Takes the block `layers.{layer}` from the source.
    ///
    /// # Errors
    /// As the source.
    pub fn load(source: &mut impl WeightSource, spec: &ModelSpec, layer: usize) -> Result<Self, ModelError> {
        let path = |name: &str| format!("layers.{layer}.{name}");
        let ((before, after), shared) =
            (spec.norm_placement.before_and_after(), spec.norm_placement == NormPlacement::Shared);
        let norm = |source: &mut _, name: &str, wanted: bool| match wanted {
            true => Norm::load(source, &path(name), spec.hidden_size, spec).map(Some),
            false => Ok(None),
        };
        let experts = spec.experts.as_ref().filter(|_| spec.layers[layer].experts);
        Ok(Self {
            input_layernorm: norm(source, "input_layernorm", before || shared)?,
            self_attn: Attention::load(source, &path("self_attn"), spec, layer)?,
            post_attention_layernorm: norm(source, "post_attention_layernorm", after)?,
            pre_feedforward_layernorm: norm(source, "pre_feedforward_layernorm", before)?,
            mlp: match experts {
                None => Some(Mlp::load(source, &path("mlp"), MlpShape::of(spec))?),
                Some(_) => None,
            },
            moe: experts.map(|experts| Experts::load(source, &path("moe"), spec, experts)).transpose()?,
            post_feedforward_layernorm: norm(source, "post_feedforward_layernorm", after)?,
            layer_input: match spec.layer_inputs {
                Some(width) => Some(LayerInput::load(source, &path("layer_input"), spec, width)?),
                None => None,
            },
            layer_scalar: match spec.layer_scalars {
                true => Some(Param::from_tensor(source.tensor(&path("layer_scalar"), [1])?)),
                false => None,
            },
            film: None,
            parallel: spec.parallel,
            residual_scale: spec.residual_scale,
        })
    }

    /// `[tokens, hidden]` and the block's own input `[tokens, width]`, where it has one → `[tokens, hidden]`
    pub fn forward(
        &self,
        x: Tensor<2>,
        own: Option<Tensor<2>>,
        rope: &RopeTables,
        attend: &mut dyn Attend,
    ) -> Tensor<2> {
        let y = self.attended(x.clone(), rope, attend);
        self.after_attention(x, y, own)
    }

    /// As [`forward`](Self::forward), these rows of the output only, `[rows, hidden]`: what is needed of the last block. The
    /// other tokens are seen by the attention.
    pub fn forward_rows(
        &self,
        x: Tensor<2>,
        own: Option<Tensor<2>>,
        rope: &RopeTables,
        attend: &mut dyn Attend,
        rows: Tensor<1, Int>,
    ) -> Tensor<2> {
        let y = self.attended(x.clone(), rope, attend);
        let own = own.map(|own| own.select(0, rows.clone()));
        self.of_rows(&rows).after_attention(x.select(0, rows.clone()), y.select(0, rows), own)
    }

    fn attended(&self, x: Tensor<2>, rope: &RopeTables, attend: &mut dyn Attend) -> Tensor<2> {
        let (qkv, attention) = (self.before_attention(x, rope), &self.self_attn);
        attend.attend(attention.layer(), attention.spec(), qkv, attention.sink_scores())
    }

    /// What the tokens of a block's input `[tokens, hidden]` bring to the attention: queries, keys
    /// and values.
    pub fn before_attention(&self, x: Tensor<2>, rope: &RopeTables) -> [Tensor<3>; 3] {
        self.self_attn.project(normed(&self.input_layernorm, x), rope)
    }

    /// The block's output from its input `[tokens, hidden]`, its attention's result `[tokens, heads · head_dim]` and its
    /// own input `[tokens, width]`, where it has one.
    pub fn after_attention(&self, x: Tensor<2>, y: Tensor<2>, own: Option<Tensor<2>>) -> Tensor<2> {
        self.after_attention_scored(x, y, own).0
    }

    /// As [`after_attention`](Self::after_attention), with the scores of a mixture's router, `[tokens, experts]`.
    pub fn after_attention_scored(
        &self,
        x: Tensor<2>,
        y: Tensor<2>,
        own: Option<Tensor<2>>,
    ) -> (Tensor<2>, Option<Tensor<2>>) {
        let (sum, input) = self.between(x, y);
        let (fed, scores) = match (&self.mlp, &self.moe) {
            (_, Some(experts)) => {
                let scores = experts.scores(&input);
                (experts.forward_routed(input, scores.clone()), Some(scores))
            }
            (Some(mlp), _) => (mlp.forward(input), None),
            (None, None) => unreachable!("a block has one of them"),
        };
        (self.fed(sum, fed, own), scores)
    }

    /// The residual stream behind the attention, and the input of the feed-forward block.
    fn between(&self, x: Tensor<2>, y: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let attended = normed(&self.post_attention_layernorm, self.self_attn.o_proj.forward(y));
        let sum = x.clone() + scaled(attended, self.residual_scale);
        let input = match (&self.pre_feedforward_layernorm, self.parallel) {
            (None, true) => normed(&self.input_layernorm, x),
            (norm, true) => normed(norm, x),
            (norm, false) => normed(norm, sum.clone()),
        };
        (sum, input)
    }

    /// The residual stream with what the feed-forward block gave, and the block's own input.
    fn fed(&self, sum: Tensor<2>, fed: Tensor<2>, own: Option<Tensor<2>>) -> Tensor<2> {
        let mut output = sum + scaled(normed(&self.post_feedforward_layernorm, fed), self.residual_scale);
        if let (Some(layer_input), Some(own)) = (&self.layer_input, own) {
            output = layer_input.forward(output, own);
        }
        if let Some(scalar) = &self.layer_scalar {
            output = output * scalar.val().unsqueeze();
        }
        match &self.film {
            Some(film) => film.forward(output),
            None => output,
        }
    }

    /// The block for these of the tokens alone, from the attention on.
    #[must_use]
    pub fn of_rows(&self, rows: &Tensor<1, Int>) -> Self {
        let mut block = self.clone();
        block.conditions_mut().for_each(|by| *by = by.of_rows(rows));
        block
    }

    /// Its linear layers that may have adapters, with their paths in here.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = (String, &mut Linear)> {
        let attention = self.self_attn.linears_mut().map(|(name, linear)| (format!("self_attn.{name}"), linear));
        let mlp = self.mlp.iter_mut().flat_map(Mlp::linears_mut);
        let mlp = mlp.map(|(name, linear)| (format!("mlp.{name}"), linear));
        let moe = self.moe.iter_mut().flat_map(Experts::linears_mut);
        let moe = moe.map(|(name, linear)| (format!("moe.{name}"), linear));
        let own = self.layer_input.iter_mut().flat_map(LayerInput::linears_mut);
        attention.chain(mlp).chain(moe).chain(own.map(|(name, linear)| (format!("layer_input.{name}"), linear)))
    }

    /// Whose z counts, wherever it does in a policy for many users: of its film and of the adapters' cores.
    pub fn conditions_mut(&mut self) -> impl Iterator<Item = &mut TokenZ> {
        let film = self.film.iter_mut().map(|film| &mut film.by);
        let attention = self.self_attn.linears_mut().map(|(_, linear)| linear);
        let mlp = self.mlp.iter_mut().flat_map(Mlp::linears_mut).map(|(_, linear)| linear);
        let moe = self.moe.iter_mut().flat_map(Experts::linears_mut).map(|(_, linear)| linear);
        let own = self.layer_input.iter_mut().flat_map(LayerInput::linears_mut).map(|(_, linear)| linear);
        let cores = attention.chain(mlp).chain(moe).chain(own);
        film.chain(cores.filter_map(|linear| Some(&mut linear.lora.as_mut()?.core.as_mut()?.mixture.first_mut()?.by)))
    }
}

/// `x` through a norm, where there is one.
pub(super) fn normed<const D: usize>(norm: &Option<Norm>, x: Tensor<D>) -> Tensor<D> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
