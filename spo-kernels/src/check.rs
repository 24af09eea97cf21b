//! Kernels in f32 against the same functions in burn's operations and f64, value and gradients; on odd shapes, and on those
//! of a model of 56 million parameters.

use crate::decoder::linear::{add_bias, product};
use crate::decoder::mlp::gated;
use crate::decoder::{RopeTables, fused, pull};
use crate::spec::Activation;
use crate::spec::{Rope, RopeScaling};
use burn::tensor::{DType, Device, Distribution, Tensor};

fn device() -> Device {
    Device::flex()
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.5), &device())
}

fn wide(x: &Tensor<2>) -> Vec<f64> {
    x.clone().cast(DType::F64).try_into_vec_as::<f64>().expect("readable")
}

/// Output and gradients of all inputs, for a given gradient of the output.
fn run<const N: usize>(
    inputs: &[Tensor<2>; N],
    d_output: &Tensor<2>,
    dtype: DType,
    f: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) -> Vec<Vec<f64>> {
    let cast = |x: &Tensor<2>| x.clone().cast(dtype);
    let leaves = inputs.each_ref().map(|x| cast(x).autodiff().require_grad());
    let output = f(leaves.clone());
    let tape = pull([(&output, &cast(d_output))]).backward();
    let mut found = vec![wide(&f(inputs.each_ref().map(cast))), wide(&output.inner())];
    found.extend(leaves.iter().map(|leaf| wide(&leaf.grad(&tape).expect("every input has a gradient"))));
    found
}

fn assert_equal<const N: usize>(what: &str, inputs: [Tensor<2>; N], f: impl Fn([Tensor<2>; N]) -> Tensor<2>) {
    let d_output = random(f(inputs.clone()).dims());
    let (kernel, reference) = (run(&inputs, &d_output, DType::F32, &f), run(&inputs, &d_output, DType::F64, &f));
    for (index, (kernel, reference)) in kernel.iter().zip(&reference).enumerate() {
        let scale = reference.iter().fold(1e-3f64, |top, x| top.max(x.abs()));
        let error = kernel.iter().zip(reference).fold(0.0f64, |top, (a, b)| top.max((a - b).abs()));
        assert!(error <= 2e-6 * scale, "{what}, part {index}: {error:e} at scale {scale:e}");
        assert_eq!(kernel.len(), reference.len());
    }
}

#[test]
fn linear_with_bias() {
    for [tokens, inner, outer] in
        [[1, 1, 1], [7, 13, 5], [130, 64, 200], [600, 48, 40], [442, 512, 1376], [442, 1376, 512]]
    {
        let inputs = [random([tokens, inner]), random([outer, inner]), random([1, outer])];
        assert_equal(&format!("{tokens} {inner} {outer}"), inputs, |[x, weight, bias]| {
            add_bias(product(x, weight), bias.reshape([outer]))
        });
    }
}

#[test]
fn gated_units() {
    for shape in [[1, 1], [9, 31], [300, 200], [442, 1376]] {
        assert_equal(&format!("{shape:?}"), [random(shape) * 4.0, random(shape)], |[gate, up]| {
            gated(Activation::Silu, gate, up)
        });
    }
}

#[test]
fn norms() {
    for [rows, width] in [[1, 3], [5, 17], [200, 64], [70, 300], [442, 512], [40, 2048]] {
        assert_equal(&format!("{rows} {width}"), [random([rows, width]), random([1, width])], |[x, weight]| {
            let weight = weight.reshape([width]);
            fused::rms_norm(&x, &weight, 1e-5, 0.5).unwrap_or_else(|| {
                let scale = (x.clone().square().mean_dim(1) + 1e-5).sqrt().recip();
                x * scale * (weight + 0.5).unsqueeze()
            })
        });
    }
}

#[test]
fn rotations() {
    for [tokens, heads, dim, turned] in [[1, 1, 2, 2], [9, 3, 6, 6], [200, 4, 32, 32], [40, 2, 16, 4], [442, 8, 64, 64]]
    {
        let ropes = [Rope { theta: 100.0, dim: turned, scaling: RopeScaling::Default }];
        let positions: Vec<i32> = (0..tokens as i32).map(|i| i * 3 % 50).collect();
        assert_equal(&format!("{tokens} {heads} {dim}"), [random([tokens, heads * dim])], |[x]| {
            let tables = RopeTables::new(&ropes, &positions, x.dtype(), &device());
            tables.rotate(0, x.reshape([tokens, heads, dim])).reshape([tokens, heads * dim])
        });
    }
}

#[test]
fn a_frozen_weight_has_no_gradient() {
    let (x, weight) = (random([6, 4]).autodiff().require_grad(), random([3, 4]));
    let y = product(x.clone(), weight.clone());
    let d_y = random([6, 3]);
    let tape = pull([(&y, &d_y)]).backward();
    let expected = d_y.matmul(weight);
    let found = x.grad(&tape).expect("the input is trained");
    assert!((found - expected).abs().max().into_scalar::<f32>() < 1e-5);
}
