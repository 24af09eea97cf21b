//! What the tests of the operations share: an operation's form in f32 against its reference in f64, value and gradients.

use crate::pull;
use burn::tensor::{DType, Device, Distribution, Tensor};

/// Numbers between −½ and ½ that look like none.
pub fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

/// Normally distributed numbers, in host memory.
pub fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.5), &Device::flex())
}

/// The numbers of a tensor.
pub fn wide<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.clone().cast(DType::F64).try_into_vec_as::<f64>().expect("readable")
}

/// Output off and on the tape, and gradients of all inputs, for a given gradient of the output.
fn parts<const N: usize>(
    inputs: [Tensor<2>; N],
    d_output: Tensor<2>,
    f: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) -> Vec<Vec<f64>> {
    let leaves = inputs.each_ref().map(|x| x.clone().autodiff().require_grad());
    let output = f(leaves.clone());
    let tape = pull::reference([(&output, &d_output)]).backward();
    let mut found = vec![wide(&f(inputs)), wide(&output.inner())];
    found.extend(leaves.iter().map(|leaf| wide(&leaf.grad(&tape).expect("every input has a gradient"))));
    found
}

/// The function in f32, by its form on the CPU, against the reference in f64: each part within 2e-6 of its largest number.
/// Forms on other devices are tested where devices have names, in spo-model.
pub fn assert_equal<const N: usize>(
    what: &str,
    inputs: [Tensor<2>; N],
    function: impl Fn([Tensor<2>; N]) -> Tensor<2>,
    reference: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    let exact = inputs.each_ref().map(|x| x.clone().cast(DType::F64));
    let d_output = random(reference(exact.clone()).dims());
    let expected = parts(exact, d_output.clone().cast(DType::F64), reference);
    let found = parts(inputs, d_output, &function);
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let scale = expected.iter().fold(1e-3f64, |top, x| top.max(x.abs()));
        let error = found.iter().zip(expected).fold(0.0f64, |top, (a, b)| top.max((a - b).abs()));
        assert!(error <= 2e-6 * scale, "{what}, part {index}: {error:e} at scale {scale:e}");
        assert_eq!(found.len(), expected.len());
    }
}
