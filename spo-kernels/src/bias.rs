//! `y + b`, with `d_b = Σ d_y` over the tokens.

use crate::{operand, run};
use burn::backend::Flex;
use burn::tensor::Tensor;

/// The operation on `[y, bias]`.
#[derive(Debug, Clone, Copy)]
pub struct AddBias;

/// `[tokens, channels]` and `[channels]` → `[tokens, channels]`
pub fn add_bias(y: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    run::<Flex, 2, 2>(AddBias, [operand(&y), operand(&bias)]).unwrap_or_else(|| reference(y, bias))
}

/// The same in burn's operations.
pub fn reference(y: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    y + bias.unsqueeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_equal, random};

    #[test]
    fn biases() {
        for [tokens, channels] in [[1, 1], [7, 5], [130, 200], [600, 40]] {
            let inputs = [random([tokens, channels]), random([1, channels])];
            let flat = |bias: Tensor<2>| bias.reshape([channels]);
            assert_equal(
                &format!("{tokens} {channels}"),
                inputs,
                |[y, bias]| add_bias(y, flat(bias)),
                |[y, bias]| reference(y, flat(bias)),
            );
        }
    }
}
