//! Gated linear units (Shazeer 2020, arXiv 2002.05202), `act(gate) · up`, and the activations alone.

use super::Buffer;
use super::launch::{UNITS, grid, lanes};
pub use crate::glu::Activation;
use cubecl::prelude::*;
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// The factor of `x` in an activation: `σ(x)`, `Φ(x)`, or what stands for `Φ`.
#[cube]
fn fraction<N: Size>(x: Vector<f32, N>, #[comptime] activation: Activation) -> Vector<f32, N> {
    let one = Vector::<f32, N>::new(1.0f32);
    if comptime!(activation == Activation::Silu) {
        one / (one + (-x).exp())
    } else if comptime!(activation == Activation::Gelu) {
        (one + (x * Vector::new(FRAC_1_SQRT_2)).erf()) * Vector::new(0.5f32)
    } else {
        (one + inner(x).tanh()) * Vector::new(0.5f32)
    }
}

/// `√(2/π) (x + 0.044715 x³)`
#[cube]
fn inner<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let one = Vector::<f32, N>::new(1.0f32);
    x * (one + x * x * Vector::new(0.044715f32)) * Vector::new(comptime!(FRAC_2_SQRT_PI * FRAC_1_SQRT_2))
}

/// The derivative of an activation whose factor is `fraction`.
#[cube]
fn derivative<N: Size>(
    x: Vector<f32, N>,
    fraction: Vector<f32, N>,
    #[comptime] activation: Activation,
) -> Vector<f32, N> {
    let one = Vector::<f32, N>::new(1.0f32);
    if comptime!(activation == Activation::Silu) {
        fraction * (one + x * (one - fraction))
    } else if comptime!(activation == Activation::Gelu) {
        let density =
            (x * x * Vector::new(-0.5f32)).exp() * Vector::new(comptime!(FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * 0.5));
        fraction + x * density
    } else {
        // With t the tanh, (1 + t)/2 = fraction and 1 − t² = 4 · fraction · (1 − fraction).
        let rise = one + x * x * Vector::new(comptime!(3.0f32 * 0.044715f32));
        let factor = Vector::new(comptime!(2.0f32 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2));
        fraction + x * rise * fraction * (one - fraction) * factor
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn gated<E: Float, N: Size>(
    gate: &[Vector<E, N>],
    up: &[Vector<E, N>],
    y: &mut [Vector<E, N>],
    #[comptime] activation: Activation,
) {
    let at = ABSOLUTE_POS as usize;
    if at < y.len() {
        let x = Vector::<f32, N>::cast_from(gate[at]);
        y[at] = Vector::cast_from(x * fraction(x, activation) * Vector::cast_from(up[at]));
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn gated_backward<E: Float, N: Size>(
    gate: &mut [Vector<E, N>],
    up: &mut [Vector<E, N>],
    d_y: &[Vector<E, N>],
    #[comptime] activation: Activation,
) {
    let at = ABSOLUTE_POS as usize;
    if at < d_y.len() {
        let (x, d) = (Vector::<f32, N>::cast_from(gate[at]), Vector::<f32, N>::cast_from(d_y[at]));
        let fraction = fraction(x, activation);
        gate[at] = Vector::cast_from(d * Vector::cast_from(up[at]) * derivative(x, fraction, activation));
        up[at] = Vector::cast_from(d * x * fraction);
    }
}

/// As `gated`, of rows that hold gate and up side by side.
#[cube(launch_unchecked, create_dummy_kernel)]
fn gated_rows<E: Float, N: Size>(
    both: &[Vector<E, N>],
    y: &mut [Vector<E, N>],
    width: usize,
    #[comptime] activation: Activation,
) {
    let at = ABSOLUTE_POS as usize;
    if at < y.len() {
        let from = at + at / width * width;
        let x = Vector::<f32, N>::cast_from(both[from]);
        y[at] = Vector::cast_from(x * fraction(x, activation) * Vector::cast_from(both[from + width]));
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn gated_rows_backward<E: Float, N: Size>(
    both: &mut [Vector<E, N>],
    d_y: &[Vector<E, N>],
    width: usize,
    #[comptime] activation: Activation,
) {
    let at = ABSOLUTE_POS as usize;
    if at < d_y.len() {
        let from = at + at / width * width;
        let (x, d) = (Vector::<f32, N>::cast_from(both[from]), Vector::<f32, N>::cast_from(d_y[at]));
        let fraction = fraction(x, activation);
        both[from] = Vector::cast_from(d * Vector::cast_from(both[from + width]) * derivative(x, fraction, activation));
        both[from + width] = Vector::cast_from(d * x * fraction);
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn activated<E: Float, N: Size>(x: &[Vector<E, N>], y: &mut [Vector<E, N>], #[comptime] activation: Activation) {
    let at = ABSOLUTE_POS as usize;
    if at < y.len() {
        let x = Vector::<f32, N>::cast_from(x[at]);
        y[at] = Vector::cast_from(x * fraction(x, activation));
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn activated_backward<E: Float, N: Size>(
    x: &mut [Vector<E, N>],
    d_y: &[Vector<E, N>],
    #[comptime] activation: Activation,
) {
    let at = ABSOLUTE_POS as usize;
    if at < d_y.len() {
        let value = Vector::<f32, N>::cast_from(x[at]);
        let by = derivative(value, fraction(value, activation), activation);
        x[at] = Vector::cast_from(by * Vector::cast_from(d_y[at]));
    }
}

/// `y = act(gate) · up`, all of one length.
pub fn forward<E: Float>(client: &Client, activation: Activation, gate: Buffer, up: Buffer, y: Buffer) {
    gate.expect("gate", y.len);
    up.expect("up", y.len);
    let lanes = lanes(y.len);
    let count = grid((y.len / lanes).div_ceil(UNITS));
    let [gate, up, y] = [gate, up, y].map(|buffer| buffer.argument(lanes));
    launch!(client, gated::<E>[count, UNITS](lanes, gate, up, y, activation));
}

/// The gradients for a gradient `d_y` of the output, in place of `gate` and `up`.
pub fn backward<E: Float>(client: &Client, activation: Activation, gate: Buffer, up: Buffer, d_y: Buffer) {
    gate.expect("gate", d_y.len);
    up.expect("up", d_y.len);
    let lanes = lanes(d_y.len);
    let count = grid((d_y.len / lanes).div_ceil(UNITS));
    let [gate, up, d_y] = [gate, up, d_y].map(|buffer| buffer.argument(lanes));
    launch!(client, gated_backward::<E>[count, UNITS](lanes, gate, up, d_y, activation));
}

/// [`forward`] of `both`, `[rows, 2 · width]`, whose rows hold gate and then up; `y` is `[rows, width]`.
pub fn forward_rows<E: Float>(client: &Client, activation: Activation, width: usize, both: Buffer, y: Buffer) {
    assert!(width > 0 && y.len.is_multiple_of(width), "rows of {width} in {} values", y.len);
    both.expect("both", 2 * y.len);
    let lanes = lanes(width);
    let count = grid((y.len / lanes).div_ceil(UNITS));
    let [both, y] = [both, y].map(|buffer| buffer.argument(lanes));
    launch!(client, gated_rows::<E>[count, UNITS](lanes, both, y, width / lanes, activation));
}

/// [`backward`] of [`forward_rows`], in place of `both`.
pub fn backward_rows<E: Float>(client: &Client, activation: Activation, width: usize, both: Buffer, d_y: Buffer) {
    assert!(width > 0 && d_y.len.is_multiple_of(width), "rows of {width} in {} values", d_y.len);
    both.expect("both", 2 * d_y.len);
    let lanes = lanes(width);
    let count = grid((d_y.len / lanes).div_ceil(UNITS));
    let [both, d_y] = [both, d_y].map(|buffer| buffer.argument(lanes));
    launch!(client, gated_rows_backward::<E>[count, UNITS](lanes, both, d_y, width / lanes, activation));
}

/// `y = act(x)`, without a gate.
pub fn activate<E: Float>(client: &Client, activation: Activation, x: Buffer, y: Buffer) {
    x.expect("x", y.len);
    let lanes = lanes(y.len);
    let count = grid((y.len / lanes).div_ceil(UNITS));
    let [x, y] = [x, y].map(|buffer| buffer.argument(lanes));
    launch!(client, activated::<E>[count, UNITS](lanes, x, y, activation));
}

/// The gradient of [`activate`] for a gradient `d_y`, in place of `x`.
pub fn activate_backward<E: Float>(client: &Client, activation: Activation, x: Buffer, d_y: Buffer) {
    x.expect("x", d_y.len);
    let lanes = lanes(d_y.len);
    let count = grid((d_y.len / lanes).div_ceil(UNITS));
    let [x, d_y] = [x, d_y].map(|buffer| buffer.argument(lanes));
    launch!(client, activated_backward::<E>[count, UNITS](lanes, x, d_y, activation));
}
