//! RMS and layer norms, forward and backward, with and without a residual.

use crate::device::*;
use half::f16;
use proptest::prelude::*;
use spo_kernels::gpu::norm::{self, InputGradient, Kind, Norm, Weights};

const KINDS: [Kind; 3] = [Kind::Rms, Kind::RmsOffset, Kind::Layer];
const EPSILON: f64 = 1e-5;
const OFFSET: f64 = 1.0;

fn of_kind(kind: Kind) -> Norm {
    Norm { kind, epsilon: EPSILON as f32, offset: OFFSET as f32 }
}

/// The norm of rows, without the rounding in between.
fn normalised(kind: Kind, width: usize, x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let row = |x: &[f64]| {
        let mean = if kind == Kind::Layer { x.iter().sum::<f64>() / width as f64 } else { 0.0 };
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (variance + f64::from(EPSILON as f32)).sqrt();
        let value = |(x, (weight, bias)): (&f64, (&f64, &f64))| match kind {
            Kind::Rms => x * scale * weight,
            Kind::RmsOffset => x * scale * (OFFSET + weight),
            Kind::Layer => (x - mean) * scale * weight + bias,
        };
        x.iter().zip(weight.iter().zip(bias)).map(value).collect::<Vec<_>>()
    };
    x.chunks(width).flat_map(row).collect()
}

struct Case {
    x: Vec<f64>,
    residual: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    d_y: Vec<f64>,
}

impl Case {
    fn new<E: Stored>(rows: usize, width: usize) -> Self {
        let of = |count, seed| numbers::<E>(count, seed);
        Self {
            x: of(rows * width, 1),
            residual: of(rows * width, 2),
            weight: of(width, 3),
            bias: of(width, 4),
            d_y: of(rows * width, 5),
        }
    }
}

fn forward<E: Stored>(rows: usize, width: usize) {
    let client = client();
    let case = Case::new::<E>(rows, width);
    let up = |values: &[f64]| upload::<E>(&client, values);
    for kind in KINDS {
        let weights = Weights { weight: up(&case.weight), bias: (kind == Kind::Layer).then(|| up(&case.bias)) };
        let run = |residual: bool| {
            let (y, statistics) = (poisoned::<E>(&client, rows * width), poisoned::<f32>(&client, 2 * rows));
            let (x, weights) = (up(&case.x), weights.clone());
            let (of, norm) = (statistics.clone(), of_kind(kind));
            match residual {
                true => {
                    let residual = up(&case.residual);
                    norm::forward_of_sum::<E>(&client, norm, width, x.clone(), residual, weights, y.clone(), of);
                }
                false => norm::forward::<E>(&client, norm, width, x.clone(), weights, y.clone(), of),
            }
            [download::<E>(&client, &x), download::<E>(&client, &y), download::<f32>(&client, &statistics)]
        };
        let [_, y, _] = run(false);
        let expected = normalised(kind, width, &case.x, &case.weight, &case.bias);
        assert_close("y", &y, &expected, E::TOLERANCE);
        let sum: Vec<f64> = case.x.iter().zip(&case.residual).map(|(x, r)| E::rounded(x + r).wide()).collect();
        let found = run(true);
        assert_eq!(found[0], sum);
        assert_close("y", &found[1], &normalised(kind, width, &sum, &case.weight, &case.bias), E::TOLERANCE);
        assert_eq!(found, run(true), "bits of a second run");
    }
}

#[test]
fn norms() {
    for (rows, width) in [(1, 1), (3, 5), (2, 64), (5, 130), (3, 2048), (70, 96)] {
        forward::<f32>(rows, width);
        forward::<f16>(rows, width);
    }
}

/// Gradients of input, weight and bias on the device.
fn gradients<E: Stored>(kind: Kind, rows: usize, width: usize, add: bool) -> [Vec<f64>; 3] {
    let client = client();
    let case = Case::new::<E>(rows, width);
    let up = |values: &[f64]| upload::<E>(&client, values);
    let (x, weight, d_y) = (up(&case.x), up(&case.weight), up(&case.d_y));
    let statistics = poisoned::<f32>(&client, 2 * rows);
    norm::statistics::<E>(&client, of_kind(kind), width, x.clone(), statistics.clone());
    let d_x = if add { up(&case.residual) } else { poisoned::<E>(&client, rows * width) };
    let to = if add { InputGradient::Add(d_x.clone()) } else { InputGradient::Store(d_x.clone()) };
    norm::backward::<E>(&client, of_kind(kind), width, x.clone(), weight, d_y.clone(), statistics.clone(), to);
    let (d_weight, d_bias) = (poisoned::<f32>(&client, width), poisoned::<f32>(&client, width));
    let of_bias = (kind == Kind::Layer).then(|| d_bias.clone());
    norm::backward_of_weights::<E>(&client, width, x, d_y, statistics, d_weight.clone(), of_bias);
    [download::<E>(&client, &d_x), download::<f32>(&client, &d_weight), download::<f32>(&client, &d_bias)]
}

fn backward<E: Stored>(rows: usize, width: usize, add: bool) {
    let Case { x, residual, weight, bias, d_y } = Case::new::<E>(rows, width);
    for kind in KINDS {
        let found = gradients::<E>(kind, rows, width, add);
        // Rows do not depend on each other, so each is differentiated alone.
        let each = x.chunks(width).zip(d_y.chunks(width));
        let mut d_x: Vec<f64> =
            each.flat_map(|(x, d_y)| differences(x, d_y, |x| normalised(kind, width, x, &weight, &bias))).collect();
        if add {
            d_x.iter_mut().zip(&residual).for_each(|(d_x, residual)| *d_x += residual);
        }
        assert_close("d_x", &found[0], &d_x, E::TOLERANCE);
        let d_weight = differences(&weight, &d_y, |weight| normalised(kind, width, &x, weight, &bias));
        assert_close("d_weight", &found[1], &d_weight, E::TOLERANCE);
        if kind == Kind::Layer {
            let d_bias = differences(&bias, &d_y, |bias| normalised(kind, width, &x, &weight, bias));
            assert_close("d_bias", &found[2], &d_bias, E::TOLERANCE);
        }
        let again = gradients::<E>(kind, rows, width, add);
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(found.each_ref().map(|of| bits(of)), again.each_ref().map(|of| bits(of)), "bits of a second run");
    }
}

proptest! {
    #![proptest_config(cases(10))]

    #[test]
    fn gradients_of_norms(rows in 1usize..140, width in 2usize..70, add in any::<bool>()) {
        backward::<f32>(rows, width, add);
        backward::<f16>(rows, width, add);
    }
}
