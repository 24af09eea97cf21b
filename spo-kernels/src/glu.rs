//! Gated linear units (Shazeer 2020, arXiv 2002.05202): `y = act(g) · u`, `d_g = d_y · u · act'(g)`, `d_u = d_y · act(g)`.

use crate::{operand, run};
use burn::backend::Flex;
use burn::tensor::{Tensor, activation::silu};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

/// The function of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x σ(x)`
    Silu,
    /// `x Φ(x)`
    Gelu,
    /// `x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`
    GeluTanh,
}

impl Activation {
    /// The activation of each value, in burn's operations.
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

/// The operation on `[gate, up]`.
#[derive(Debug, Clone, Copy)]
pub struct Glu(pub Activation);

/// `act(gate) · up`: two tensors of one shape `[tokens, channels]` → a third of it.
pub fn glu(activation: Activation, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    // The CPU's form is of SiLU alone.
    let y = match activation {
        Activation::Silu => run::<Flex, 2, 2>(Glu(activation), [operand(&gate), operand(&up)]),
        _ => None,
    };
    #[cfg(feature = "gpu")]
    let y = y.or_else(|| run::<burn_cubecl::CubeBackend, 2, 2>(Glu(activation), [operand(&gate), operand(&up)]));
    y.unwrap_or_else(|| reference(activation, gate, up))
}

/// The same in burn's operations.
pub fn reference(activation: Activation, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation.forward(gate) * up
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_equal, random};

    #[test]
    fn gated_units() {
        let of = Activation::Silu;
        for shape in [[1, 1], [9, 31], [300, 200], [442, 1376]] {
            let inputs = [random(shape) * 4.0, random(shape)];
            let form = |[gate, up]: [Tensor<2>; 2]| glu(of, gate, up);
            assert_equal(&format!("{shape:?}"), inputs, form, |[gate, up]| reference(of, gate, up));
        }
    }
}
