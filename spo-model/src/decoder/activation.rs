//! Activations of the feed-forward block.

use crate::spec::Activation;
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use spo_kernels::glu::{self, glu};

impl Activation {
    /// The same as a function of one number, where it is one.
    fn plain(self) -> Option<glu::Activation> {
        match self {
            Self::Silu => Some(glu::Activation::Silu),
            Self::Gelu => Some(glu::Activation::Gelu),
            Self::GeluTanh => Some(glu::Activation::GeluTanh),
            Self::Xielu | Self::Clamped { .. } => None,
        }
    }

    /// The activation of each value.
    pub fn forward(self, x: Tensor<2>) -> Tensor<2> {
        let plain = self.plain();
        plain
            .expect("the slopes of xIELU are those of an `Xielu`, and a clamped gate changes the other half too")
            .forward(x)
    }

    /// `act(gate) · up`: two tensors of one shape → a third of it.
    pub fn gated(self, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
        match (self.plain(), self) {
            (Some(activation), _) => glu(activation, gate, up),
            (None, Self::Clamped { alpha, limit }) => {
                let gate = gate.clamp_max(limit);
                let swish = gate.clone() * sigmoid(gate * alpha);
                (up.clamp(-limit, limit) + 1.0) * swish
            }
            (None, _) => self.forward(gate) * up,
        }
    }
}
