//! `Σ x²` over several tensors, for the norm of gradients: one read from the device.

use crate::host::read;
use burn::tensor::Tensor;

/// The sum of the squares of all numbers of these tensors, which lie on one device.
pub fn sum_of_squares(tensors: &[Tensor<1>]) -> f64 {
    #[cfg(feature = "gpu")]
    if let Some(sum) = crate::gpu::form::sum_of_squares(tensors) {
        return sum;
    }
    reference(tensors)
}

/// The same in burn's operations.
pub fn reference(tensors: &[Tensor<1>]) -> f64 {
    if tensors.is_empty() {
        return 0.0;
    }
    let sums = tensors.iter().map(|x| x.clone().square().sum()).collect();
    read(Tensor::cat(sums, 0)).iter::<f64>().sum()
}
