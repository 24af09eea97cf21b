//! Feed-forward block: gated (SwiGLU and GeGLU, Shazeer 2020, arXiv 2002.05202) or plain.

use super::Linear;
use crate::load::WeightSource;
use crate::spec::{Activation, MlpKind};
use crate::{ModelError, ModelSpec};
use burn::module::Module;
use burn::tensor::Tensor;
use spo_kernels::glu::glu;

/// `down(act(gate(x)) · up(x))`, or `down(act(up(x)))` without a gate.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[intermediate, hidden]`
    pub gate_proj: Option<Linear>,
    /// `[intermediate, hidden]`
    pub up_proj: Option<Linear>,
    /// Gate and up stacked, `[2 · intermediate, hidden]`, instead of the two.
    pub gate_up_proj: Option<Linear>,
    /// `[hidden, intermediate]`
    pub down_proj: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    /// Takes the projections below `path` from the source.
    ///
    /// # Errors
    /// As the source.
    pub fn load(source: &mut impl WeightSource, path: &str, spec: &ModelSpec) -> Result<Self, ModelError> {
        let (hidden, inner) = (spec.hidden_size, spec.intermediate_size);
        let mut linear = |name: &str, shape| Linear::load(source, &format!("{path}.{name}"), shape, spec.mlp_bias);
        let (gate_proj, up_proj, gate_up_proj) = match spec.mlp {
            MlpKind::Gated => {
                (Some(linear("gate_proj", [inner, hidden])?), Some(linear("up_proj", [inner, hidden])?), None)
            }
            MlpKind::GatedFused => (None, None, Some(linear("gate_up_proj", [2 * inner, hidden])?)),
            MlpKind::Plain => (None, Some(linear("up_proj", [inner, hidden])?), None),
        };
        let down_proj = linear("down_proj", [hidden, inner])?;
        Ok(Self { gate_proj, up_proj, gate_up_proj, down_proj, activation: spec.activation })
    }

    /// `[tokens, hidden]` → `[tokens, hidden]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let up = |x| self.up_proj.as_ref().expect("there is one where nothing is fused").forward(x);
        let inner = match (&self.gate_up_proj, &self.gate_proj) {
            (Some(both), _) => {
                let both = both.forward(x);
                let inner = both.dims()[1] / 2;
                gated(self.activation, both.clone().narrow(1, 0, inner), both.narrow(1, inner, inner))
            }
            (None, Some(gate)) => gated(self.activation, gate.forward(x.clone()), up(x)),
            (None, None) => self.activation.forward(up(x)),
        };
        self.down_proj.forward(inner)
    }

    /// Its linear layers with their names.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Linear)> {
        [
            ("gate_proj", self.gate_proj.as_mut()),
            ("up_proj", self.up_proj.as_mut()),
            ("gate_up_proj", self.gate_up_proj.as_mut()),
            ("down_proj", Some(&mut self.down_proj)),
        ]
        .into_iter()
        .filter_map(|(name, linear)| Some((name, linear?)))
    }
}

/// `act(gate) · up`
fn gated(activation: Activation, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    match activation {
        Activation::Silu => glu(gate, up),
        _ => activation.forward(gate) * up,
    }
}
