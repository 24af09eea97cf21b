//! Activations of the feed-forward block.

use crate::spec::Activation;
use burn::tensor::{Tensor, activation::silu};
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
        }
    }
}
