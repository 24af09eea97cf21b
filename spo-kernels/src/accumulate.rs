//! `sum + gradient` in the sum's type, and in its memory where a form can: gradients of micro-batches, one after the other.

use burn::tensor::Tensor;

/// `[elements]` and `[elements]` → `[elements]`, in the type of `sum`.
pub fn accumulate(sum: Tensor<1>, gradient: Tensor<1>) -> Tensor<1> {
    #[cfg(feature = "gpu")]
    let sum = match crate::gpu::form::accumulate(sum, &gradient) {
        Ok(sum) => return sum,
        Err(sum) => sum,
    };
    reference(sum, gradient)
}

/// The same in burn's operations.
pub fn reference(sum: Tensor<1>, gradient: Tensor<1>) -> Tensor<1> {
    let dtype = sum.dtype();
    sum + gradient.cast(dtype)
}
