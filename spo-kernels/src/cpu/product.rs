//! See [`crate::product`].

use super::{Matrix, Values, matmul};
use burn::tensor::Tensor;

/// `a b`; `None` for tensors that are not f32 tensors of the CPU.
pub fn product(a: &Tensor<2>, b: &Tensor<2>) -> Option<Tensor<2>> {
    let ([rows, inner], [_, columns]) = (a.dims(), b.dims());
    let (a, b) = (Values::of(a)?, Values::of(b)?);
    let out = matmul::product(Matrix::new(&a, rows, inner), Matrix::new(&b, inner, columns));
    Some(Values::new(out, [rows, columns]).into_tensor())
}

/// `sum + aᵀ b`, in the memory of the sum; all three must [`fit`](Values::fit).
pub fn add_transposed(sum: Tensor<2>, a: &Tensor<2>, b: &Tensor<2>) -> Option<Tensor<2>> {
    let ([inner, rows], [_, columns]) = (a.dims(), b.dims());
    let (a, b, mut sum) = (Values::of(a)?, Values::of(b)?, Values::take(sum)?);
    let a = Matrix::new(&a, inner, rows).transposed();
    matmul::add_product(a, Matrix::new(&b, inner, columns), sum.make_mut());
    Some(sum.into_tensor())
}
