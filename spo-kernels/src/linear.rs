//! `y = x Wᵀ` in the checkpoint's layout of the weight, `[out, in]`; `d_x = d_y W`, `d_W = d_yᵀ x`.

use crate::{operand, run};
use burn::backend::Flex;
use burn::tensor::Tensor;

/// The operation on `[x, weight]`.
#[derive(Debug, Clone, Copy)]
pub struct Linear {
    /// Rows of `x`.
    pub tokens: usize,
    /// Inputs.
    pub inner: usize,
    /// Outputs.
    pub outer: usize,
}

/// `[tokens, in]` and `[out, in]` → `[tokens, out]`
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let ([tokens, inner], [outer, _]) = (x.dims(), weight.dims());
    let form = Linear { tokens, inner, outer };
    let y = run::<Flex, 2, 2>(form, [operand(&x), operand(&weight)]);
    #[cfg(feature = "gpu")]
    let y = y.or_else(|| run::<burn_cubecl::CubeBackend, 2, 2>(form, [operand(&x), operand(&weight)]));
    y.unwrap_or_else(|| reference(x, weight))
}

/// The same in burn's operations.
pub fn reference(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    x.matmul(weight.transpose())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_equal, random};
    use crate::pull::pull;

    #[test]
    fn linear_layers() {
        for [tokens, inner, outer] in
            [[1, 1, 1], [7, 13, 5], [130, 64, 200], [600, 48, 40], [442, 512, 1376], [442, 1376, 512]]
        {
            let inputs = [random([tokens, inner]), random([outer, inner])];
            let what = format!("{tokens} {inner} {outer}");
            assert_equal(&what, inputs, |[x, weight]| linear(x, weight), |[x, weight]| reference(x, weight));
        }
    }

    #[test]
    fn a_frozen_weight_has_no_gradient() {
        let (x, weight) = (random([6, 4]).autodiff().require_grad(), random([3, 4]));
        let y = linear(x.clone(), weight.clone());
        let d_y = random([6, 3]);
        let tape = pull([(&y, &d_y)]).backward();
        let expected = d_y.matmul(weight);
        let found = x.grad(&tape).expect("the input is trained");
        assert!((found - expected).abs().max().into_scalar::<f32>() < 1e-5);
    }
}
