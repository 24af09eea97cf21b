//! Gated linear units (Shazeer 2020, arXiv 2002.05202) with SiLU: `y = g σ(g) · u`.
//!
//! With `s = σ(g)`: `d_g = d_y · u · s (1 + g (1 − s))`, `d_u = d_y · g s`.

use crate::{operand, run};
use burn::backend::Flex;
use burn::tensor::{Tensor, activation::silu};

/// The operation on `[gate, up]`.
#[derive(Debug, Clone, Copy)]
pub struct Glu;

/// `silu(gate) · up`: two tensors of one shape `[tokens, channels]` → a third of it.
pub fn glu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let y = run::<Flex, 2, 2>(Glu, [operand(&gate), operand(&up)]);
    #[cfg(feature = "gpu")]
    let y = y.or_else(|| run::<burn_cubecl::CubeBackend, 2, 2>(Glu, [operand(&gate), operand(&up)]));
    y.unwrap_or_else(|| reference(gate, up))
}

/// The same in burn's operations.
pub fn reference(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    silu(gate) * up
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_equal, random};

    #[test]
    fn gated_units() {
        for shape in [[1, 1], [9, 31], [300, 200], [442, 1376]] {
            let inputs = [random(shape) * 4.0, random(shape)];
            assert_equal(&format!("{shape:?}"), inputs, |[gate, up]| glu(gate, up), |[gate, up]| reference(gate, up));
        }
    }
}
