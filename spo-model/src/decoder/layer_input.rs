//! What a block makes of its own input of each token (Gemma 4).

use super::source::WeightSource;
use super::{Linear, Norm};
use crate::spec::Activation;
use crate::{ModelError, ModelSpec};
use burn::module::Module;
use burn::tensor::Tensor;

/// `x + norm(projection(act(gate(x)) · p))`, p being the block's own input.
#[derive(Module, Debug)]
pub struct LayerInput {
    /// `[width, hidden]`
    pub gate: Linear,
    /// `[hidden, width]`
    pub projection: Linear,
    /// Norm of what is added.
    pub post_norm: Norm,
    #[module(skip)]
    activation: Activation,
}

impl LayerInput {
    /// Takes the parameters below `path` from the source, for inputs of this width.
    ///
    /// # Errors
    /// As the source.
    pub fn load(
        source: &mut impl WeightSource,
        path: &str,
        spec: &ModelSpec,
        width: usize,
    ) -> Result<Self, ModelError> {
        let mut linear = |name: &str, shape| Linear::load(source, &format!("{path}.{name}"), shape, false);
        Ok(Self {
            gate: linear("gate", [width, spec.hidden_size])?,
            projection: linear("projection", [spec.hidden_size, width])?,
            post_norm: Norm::load(source, &format!("{path}.post_norm"), spec.hidden_size, spec)?,
            activation: spec.activation,
        })
    }

    /// The residual stream `[tokens, hidden]` with what the block's own input `[tokens, width]` adds to it.
    pub fn forward(&self, x: Tensor<2>, own: Tensor<2>) -> Tensor<2> {
        let gated = self.activation.gated(self.gate.forward(x.clone()), own);
        x + self.post_norm.forward(self.projection.forward(gated))
    }

    /// Its linear layers with their names.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Linear)> {
        [("gate", &mut self.gate), ("projection", &mut self.projection)].into_iter()
    }
}
