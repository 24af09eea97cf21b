//! What z does to the core of a conditional adapter.

use super::film::TokenZ;
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use spo_kernels::linear::linear;

/// The coefficients of a core's matrices, `c(z) = C z + c₀`.
#[derive(Module, Debug)]
pub struct Mixture {
    /// C, `[matrices, width]`
    pub weight: Param<Tensor<2>>,
    /// c₀, `[matrices]`
    pub bias: Param<Tensor<1>>,
    /// What it goes by.
    pub by: TokenZ,
}

impl Mixture {
    /// Equal coefficients, whatever z.
    pub fn equal(matrices: usize, width: usize, device: &Device, dtype: DType) -> Self {
        let weight = Tensor::<2>::zeros([matrices, width], (device, dtype));
        let bias = Tensor::<1>::ones([matrices], (device, dtype)) / matrices as f64;
        Self::new(weight, bias, TokenZ::zero(width, device, dtype))
    }

    /// Of this C, `[matrices, width]`, and c₀, `[matrices]`.
    pub fn new(weight: Tensor<2>, bias: Tensor<1>, by: TokenZ) -> Self {
        Self { weight: Param::from_tensor(weight), bias: Param::from_tensor(bias), by }
    }

    /// The coefficients of each set, `[sets, matrices]`.
    pub fn of_sets(&self) -> Tensor<2> {
        self.by.z.clone().matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze::<2>()
    }

    /// `Σₖ cₖ(z) W₂,ₖ x` for each row of `x`, `[tokens, rank]`; `weighed` has the `W₂,ₖ` below each other.
    pub fn apply(&self, x: Tensor<2>, weighed: Tensor<2>) -> Tensor<2> {
        let ([tokens, rank], dtype) = (x.dims(), x.dtype());
        let coefficients = self.by.of_tokens(self.of_sets().cast(dtype));
        let matrices = coefficients.dims()[1];
        let each = linear(x, weighed).reshape([tokens, matrices, rank]);
        (each * coefficients.unsqueeze_dim::<3>(2)).sum_dim(1).reshape([tokens, rank])
    }

    /// `Σₖ cₖ(z) W₂,ₖ` for the first z, `[rank, rank]`.
    pub fn mixed(&self, weighed: Tensor<2>) -> Tensor<2> {
        let ([rows, rank], matrices) = (weighed.dims(), self.bias.val().dims()[0]);
        debug_assert_eq!(rows, matrices * rank);
        let first = self.of_sets().narrow(0, 0, 1).cast(weighed.dtype()).reshape([matrices, 1, 1]);
        (weighed.reshape([matrices, rank, rank]) * first).sum_dim(0).reshape([rank, rank])
    }
}
