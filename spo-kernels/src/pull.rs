//! Where a tape begins to be walked back.

use super::fused;
use burn::tensor::Tensor;

/// A number whose `backward` walks back from outputs with the given derivatives: those of `Σ output · d_output`.
pub fn pull<const N: usize, const D: usize>(outputs: [(&Tensor<D>, &Tensor<D>); N]) -> Tensor<1> {
    fused::pull(outputs).unwrap_or_else(|| {
        let terms = outputs.map(|(x, d_x)| (x.clone() * d_x.clone().autodiff()).sum());
        terms.into_iter().reduce(|sum, term| sum + term).expect("at least one output")
    })
}
