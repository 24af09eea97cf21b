//! SwiGLU feed-forward block (Shazeer 2020, arXiv 2002.05202).

use super::{Linear, fused};
use crate::load::WeightSource;
use crate::{ModelError, ModelSpec};
use burn::module::Module;
use burn::tensor::{Tensor, activation::silu};

/// `down(silu(gate(x)) · up(x))`
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[intermediate, hidden]`
    pub gate_proj: Linear,
    /// `[intermediate, hidden]`
    pub up_proj: Linear,
    /// `[hidden, intermediate]`
    pub down_proj: Linear,
}

impl Mlp {
    /// Takes the three projections below `path` from the source.
    ///
    /// # Errors
    /// As the source.
    pub fn load(source: &mut impl WeightSource, path: &str, spec: &ModelSpec) -> Result<Self, ModelError> {
        let (hidden, inner) = (spec.hidden_size, spec.intermediate_size);
        let mut linear = |name: &str, shape| Linear::load(source, &format!("{path}.{name}"), shape, spec.mlp_bias);
        Ok(Self {
            gate_proj: linear("gate_proj", [inner, hidden])?,
            up_proj: linear("up_proj", [inner, hidden])?,
            down_proj: linear("down_proj", [hidden, inner])?,
        })
    }

    /// `[tokens, hidden]` → `[tokens, hidden]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = self.gate_proj.forward(x.clone());
        self.down_proj.forward(gated(gate, self.up_proj.forward(x)))
    }
}

/// `silu(gate) · up`
pub(super) fn gated(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    if let Some(y) = fused::glu(&gate, &up, fused::Gate::Silu) {
        return y;
    }
    silu(gate) * up
}
