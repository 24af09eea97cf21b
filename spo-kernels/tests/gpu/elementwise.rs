//! Gated units, activations, rotary embedding, dequantisation.

use crate::device::*;
use half::f16;
use proptest::prelude::*;
use spo_kernels::gpu::glu::{self, Activation};
use spo_kernels::gpu::rope::{self, Table, Turn};
use spo_kernels::gpu::{Buffer, dequantise};

const ACTIVATIONS: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];

/// Abramowitz & Stegun 7.1.5: the series, which converges everywhere.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn activation(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => x * (1.0 + erf(x / 2f64.sqrt())) / 2.0,
        Activation::GeluTanh => {
            x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh()) / 2.0
        }
    }
}

/// The central difference of an activation.
fn gradient(x: f64, of: Activation) -> f64 {
    (activation(x + 1e-5, of) - activation(x - 1e-5, of)) / 2e-5
}

/// Gates between −5 and 5, values, and gradients.
fn gated_inputs<E: Stored>(count: usize) -> [Vec<f64>; 3] {
    let gate = numbers::<E>(count, 1).into_iter().map(|x| E::rounded(5.0 * x).wide()).collect();
    [gate, numbers::<E>(count, 2), numbers::<E>(count, 3)]
}

fn expected_gradients([gate, up, d_y]: &[Vec<f64>; 3], of: Activation) -> [Vec<f64>; 2] {
    let each = || gate.iter().zip(up).zip(d_y);
    [
        each().map(|((gate, up), d_y)| d_y * up * gradient(*gate, of)).collect(),
        each().map(|((gate, _), d_y)| d_y * activation(*gate, of)).collect(),
    ]
}

fn gated<E: Stored>(count: usize) {
    let client = client();
    let inputs = gated_inputs::<E>(count);
    for of in ACTIVATIONS {
        let [gate, up, d_y] = inputs.each_ref().map(|values| upload::<E>(&client, values));
        let y = poisoned::<E>(&client, count);
        glu::forward::<E>(&client, of, gate.clone(), up.clone(), y.clone());
        let expected: Vec<_> = inputs[0].iter().zip(&inputs[1]).map(|(gate, up)| activation(*gate, of) * up).collect();
        assert_close("y", &download::<E>(&client, &y), &expected, E::TOLERANCE);
        glu::backward::<E>(&client, of, gate.clone(), up.clone(), d_y);
        let [d_gate, d_up] = expected_gradients(&inputs, of);
        assert_close("d_gate", &download::<E>(&client, &gate), &d_gate, E::TOLERANCE);
        assert_close("d_up", &download::<E>(&client, &up), &d_up, E::TOLERANCE);
    }
}

#[test]
fn gated_units() {
    for count in [1, 2, 255, 4096, 70_000] {
        gated::<f32>(count);
        gated::<f16>(count);
    }
}

/// Rows of two tensors side by side.
fn side_by_side(a: &[f64], b: &[f64], width: usize) -> Vec<f64> {
    a.chunks(width).zip(b.chunks(width)).flat_map(|(a, b)| [a, b].concat()).collect()
}

fn gated_rows<E: Stored>(rows: usize, width: usize) {
    let client = client();
    let inputs = gated_inputs::<E>(rows * width);
    for of in ACTIVATIONS {
        let both = upload::<E>(&client, &side_by_side(&inputs[0], &inputs[1], width));
        let (y, d_y) = (poisoned::<E>(&client, rows * width), upload::<E>(&client, &inputs[2]));
        glu::forward_rows::<E>(&client, of, width, both.clone(), y.clone());
        let expected: Vec<_> = inputs[0].iter().zip(&inputs[1]).map(|(gate, up)| activation(*gate, of) * up).collect();
        assert_close("y", &download::<E>(&client, &y), &expected, E::TOLERANCE);
        glu::backward_rows::<E>(&client, of, width, both.clone(), d_y);
        let [d_gate, d_up] = expected_gradients(&inputs, of);
        let expected = side_by_side(&d_gate, &d_up, width);
        assert_close("d_both", &download::<E>(&client, &both), &expected, E::TOLERANCE);
    }
}

#[test]
fn gated_units_of_one_tensor() {
    for (rows, width) in [(1, 1), (3, 7), (5, 36), (40, 130)] {
        gated_rows::<f32>(rows, width);
        gated_rows::<f16>(rows, width);
    }
}

fn activations<E: Stored>(count: usize) {
    let client = client();
    let [x, _, d_y] = gated_inputs::<E>(count);
    for of in ACTIVATIONS {
        let (on_device, y) = (upload::<E>(&client, &x), poisoned::<E>(&client, count));
        glu::activate::<E>(&client, of, on_device.clone(), y.clone());
        let expected: Vec<_> = x.iter().map(|x| activation(*x, of)).collect();
        assert_close("y", &download::<E>(&client, &y), &expected, E::TOLERANCE);
        glu::activate_backward::<E>(&client, of, on_device.clone(), upload::<E>(&client, &d_y));
        let expected: Vec<_> = x.iter().zip(&d_y).map(|(x, d_y)| d_y * gradient(*x, of)).collect();
        assert_close("d_x", &download::<E>(&client, &on_device), &expected, E::TOLERANCE);
    }
}

#[test]
fn activations_alone() {
    for count in [3, 1000] {
        activations::<f32>(count);
        activations::<f16>(count);
    }
}

/// Large values neither overflow nor give numbers that are none.
#[test]
fn activations_far_out() {
    let client = client();
    let x = [-60_000.0, -300.0, -30.0, 0.0, 30.0, 300.0, 60_000.0];
    for of in ACTIVATIONS {
        let (on_device, y) = (upload::<f32>(&client, &x), poisoned::<f32>(&client, x.len()));
        glu::activate::<f32>(&client, of, on_device.clone(), y.clone());
        assert_close("y", &download::<f32>(&client, &y), &x.map(|x: f64| x.max(0.0)), 1e-6);
        glu::activate_backward::<f32>(&client, of, on_device.clone(), upload::<f32>(&client, &[1.0; 7]));
        let expected = [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0];
        assert_close("d_x", &download::<f32>(&client, &on_device), &expected, 1e-6);
    }
}

/// Cosines and sines of some positions, as a model's tables have them.
fn tables(positions: usize, turned: usize) -> [Vec<f64>; 2] {
    let angle = |place: usize| {
        let (position, channel) = (place / (turned / 2), place % (turned / 2));
        position as f64 * 10_000f64.powf(-2.0 * channel as f64 / turned as f64)
    };
    let table =
        |f: fn(f64) -> f64| (0..positions * turned / 2).map(|place| f64::from(f(angle(place)) as f32)).collect();
    [table(f64::cos), table(f64::sin)]
}

/// Sizes of a rotary embedding.
#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    dim: usize,
    turned: usize,
}

fn turned(x: &[f64], [cos, sin]: &[Vec<f64>; 2], positions: &[u32], sizes: Sizes, sign: f64) -> Vec<f64> {
    let half = sizes.turned / 2;
    let mut y = x.to_vec();
    for (row, y) in y.chunks_mut(sizes.dim).enumerate() {
        let position = positions[row / sizes.heads] as usize;
        for channel in 0..half {
            let (cos, sin) = (cos[position * half + channel], sign * sin[position * half + channel]);
            let (a, b) = (y[channel], y[channel + half]);
            (y[channel], y[channel + half]) = (a * cos - b * sin, b * cos + a * sin);
        }
    }
    y
}

fn rotary<E: Stored>(tokens: usize, sizes: Sizes) {
    let client = client();
    let tables = tables(50, sizes.turned);
    let positions: Vec<u32> = (0..tokens as u32).map(|token| token * 7 % 50).collect();
    let x = numbers::<E>(tokens * sizes.heads * sizes.dim, 4);
    let [cos, sin] = tables.each_ref().map(|values| upload::<f32>(&client, values));
    let table = Table { cos, sin, turned: sizes.turned };
    for (turn, sign) in [(Turn::Forth, 1.0), (Turn::Back, -1.0)] {
        let on_device = upload::<E>(&client, &x);
        let on_positions = Buffer::from_slice(&client, &positions);
        rope::turn::<E>(&client, turn, table.clone(), on_positions, sizes.dim, on_device.clone());
        let expected = turned(&x, &tables, &positions, sizes, sign);
        assert_close("turned", &download::<E>(&client, &on_device), &expected, E::TOLERANCE);
    }
}

#[test]
fn rotary_embedding() {
    let sizes = |heads, dim, turned| Sizes { heads, dim, turned };
    for (tokens, sizes) in [(1, sizes(1, 2, 2)), (7, sizes(3, 16, 16)), (9, sizes(2, 80, 20)), (300, sizes(4, 64, 64))]
    {
        rotary::<f32>(tokens, sizes);
        rotary::<f16>(tokens, sizes);
    }
}

/// Turning back is the transpose of turning, so it gives the gradient.
#[test]
fn turning_back_is_the_gradient() {
    let sizes = Sizes { heads: 2, dim: 10, turned: 6 };
    let (tables, positions) = (tables(9, sizes.turned), [3, 8, 0]);
    let (x, d_y) = (numbers::<f32>(60, 4), numbers::<f32>(60, 5));
    let expected = differences(&x, &d_y, |x| turned(x, &tables, &positions, sizes, 1.0));
    let client = client();
    let [cos, sin] = tables.each_ref().map(|values| upload::<f32>(&client, values));
    let (table, on_device) = (Table { cos, sin, turned: sizes.turned }, upload::<f32>(&client, &d_y));
    let positions = Buffer::from_slice(&client, &positions);
    rope::turn::<f32>(&client, Turn::Back, table, positions, sizes.dim, on_device.clone());
    assert_close("gradient", &download::<f32>(&client, &on_device), &expected, 1e-5);
}

/// Whole numbers of the largest code, as 8-bit weights have them.
fn values_of(bits: usize) -> Vec<f64> {
    let half = f64::from(1 << (bits - 1));
    (0..1 << bits).map(|code| f64::from(((f64::from(code) - half) / (half - 1.0)) as f32)).collect()
}

fn dequantised<E: Stored>([out, inputs]: [usize; 2], [bits, block]: [usize; 2], adds: bool, first: usize) {
    let client = client();
    let layout = dequantise::Layout { bits, block, inputs, adds };
    let ([words, of_row], values) = (layout.row(), values_of(bits));
    let packed: Vec<u32> = numbers::<f32>(out * words, 6).into_iter().map(|x| ((x + 1.0) * 2e9) as u32).collect();
    let scales = numbers::<f32>(out * of_row, 7);
    let rows = out - first;
    let weight = poisoned::<E>(&client, rows * inputs);
    let [on_scales, on_values] = [&scales, &values].map(|values| upload::<f32>(&client, values));
    let on_packed = Buffer::from_slice(&client, &packed);
    dequantise::rows::<E>(&client, layout, first, on_packed, on_scales, on_values, weight.clone());
    let value = |place: usize| {
        let (row, column) = (first + place / inputs, place % inputs);
        let code = packed[row * words + column % words] >> (bits * (column / words)) & ((1 << bits) - 1);
        let of_block = row * of_row + column / block;
        values[code as usize] * scales[of_block] + if adds { scales[of_block + of_row / 2] } else { 0.0 }
    };
    let expected: Vec<f64> = (0..rows * inputs).map(value).collect();
    let tolerance = if E::TOLERANCE < 1e-4 { 1e-7 } else { E::TOLERANCE };
    assert_close("weight", &download::<E>(&client, &weight), &expected, tolerance);
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn packed_weights(
        out in 1usize..40,
        inputs in 1usize..300,
        (eight, adds) in any::<(bool, bool)>(),
        block in prop::sample::select(vec![8usize, 16, 32, 64, 128]),
        first in 0usize..40,
    ) {
        let form = [if eight { 8 } else { 4 }, block];
        dequantised::<f32>([out, inputs], form, adds, first % out);
        dequantised::<f16>([out, inputs], form, adds, first % out);
    }
}
