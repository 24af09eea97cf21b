//! Activations of the feed-forward block.

use crate::spec::Activation;
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, silu};
use spo_kernels::glu::glu;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

impl Activation {
    /// The activation of each value.
    pub fn forward(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Silu => silu(x),
            Self::Gelu => x.clone() * ((x * FRAC_1_SQRT_2).erf() + 1.0) * 0.5,
            Self::GeluTanh => {
                let cubic = x.clone() * (x.clone().square() * 0.044_715 + 1.0);
                x * ((cubic * FRAC_2_PI.sqrt()).tanh() + 1.0) * 0.5
            }
            Self::Xielu => unreachable!("its slopes are those of an `Xielu`"),
            Self::Clamped { .. } => unreachable!("a gate of this kind changes the other half too"),
        }
    }

    /// `act(gate) · up`: two tensors of one shape → a third of it.
    pub fn gated(self, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Silu => glu(gate, up),
            Self::Clamped { alpha, limit } => {
                let gate = gate.clamp_max(limit);
                let swish = gate.clone() * sigmoid(gate * alpha);
                (up.clamp(-limit, limit) + 1.0) * swish
            }
            _ => self.forward(gate) * up,
        }
    }
}
