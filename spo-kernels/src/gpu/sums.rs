//! Sums of gradients: adding to them, their squares for the norm, and the factor that clips them. Every sum has one
//! order, whatever the device.

use super::launch::{UNITS, grid, lanes};
use super::{Buffer, cube};
use cubecl::prelude::*;

/// Most cubes that add up squares of one buffer.
const MOST_PARTS: usize = 4096;
/// Vectors that a unit adds up at least.
const LEAST_VECTORS: usize = 8;

#[cube(launch_unchecked, create_dummy_kernel)]
fn add<E: Float, N: Size>(sum: &mut [Vector<f32, N>], gradient: &[Vector<E, N>]) {
    let at = ABSOLUTE_POS as usize;
    if at < sum.len() {
        sum[at] += Vector::cast_from(gradient[at]);
    }
}

/// `sum += gradient`, the sum in f32.
pub fn accumulate<E: Float>(client: &Client, sum: Buffer, gradient: Buffer) {
    gradient.expect("gradient", sum.len);
    let lanes = lanes(sum.len);
    let count = grid((sum.len / lanes).div_ceil(UNITS));
    launch!(client, add::<E>[count, UNITS](lanes, sum.argument(lanes), gradient.argument(lanes)));
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn columns(parts: &[f32], sums: &mut [f32]) {
    let (column, width) = (ABSOLUTE_POS as usize, sums.len());
    if column < width {
        let mut sum = 0.0f32;
        let mut at = column;
        while at < parts.len() {
            sum += parts[at];
            at += width;
        }
        sums[column] = sum;
    }
}

/// The sum of the rows of `parts` `[rows, width]`, in f32 `[width]`.
pub fn sum_columns(client: &Client, width: usize, parts: Buffer, sums: Buffer) {
    sums.expect("sums", width);
    parts.expect("parts", parts.len / width * width);
    launch!(client, columns[grid(width.div_ceil(UNITS)), UNITS](parts.argument(1), sums.argument(1)));
}

/// Cube `i` adds up its share of the vectors: those from `i · share`.
#[cube(launch_unchecked, create_dummy_kernel)]
fn squares_of_parts<N: Size>(values: &[Vector<f32, N>], parts: &mut [f32], first: usize, count: usize, share: usize) {
    let part = CUBE_POS as usize;
    if part < count {
        let end = usize::min((part + 1) * share, values.len());
        let mut total = Vector::<f32, N>::new(0.0f32);
        let mut at = part * share + UNIT_POS as usize;
        while at < end {
            let value = values[at];
            total += value * value;
            at += UNITS;
        }
        let mut shared = Shared::<[f32]>::new_slice(UNITS);
        let sum = cube::sum(total.vector_sum(), &mut shared, UNITS);
        if UNIT_POS == 0 {
            parts[first + part] = sum;
        }
    }
}

/// Vectors of each part, and the number of parts.
fn shares(vectors: usize) -> (usize, usize) {
    let parts = vectors.div_ceil(UNITS * LEAST_VECTORS).clamp(1, MOST_PARTS);
    let share = vectors.div_ceil(parts).max(1);
    (share, vectors.div_ceil(share).max(1))
}

/// How many numbers [`squares`] writes for a buffer of `len` values.
pub fn parts(len: usize) -> usize {
    shares(len / lanes(len)).1
}

/// Adds up the squares of `values`, f32, part by part: writes [`parts`]`(values.len)` numbers to `parts` from place
/// `first`.
pub fn squares(client: &Client, values: Buffer, parts: Buffer, first: usize) {
    let lanes = lanes(values.len);
    let (share, count) = shares(values.len / lanes);
    assert!(first + count <= parts.len, "{count} parts from place {first} of {}", parts.len);
    launch!(client, squares_of_parts[grid(count), UNITS](
        lanes, values.argument(lanes), parts.argument(1), first, count, share
    ));
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn clip(parts: &[f32], norm: &mut [f32], factor: &mut [f32], scale: f32, most: f32) {
    let mut total = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < parts.len() {
        total += parts[at];
        at += UNITS;
    }
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let sum = cube::sum(total, &mut shared, UNITS);
    if UNIT_POS == 0 {
        let length = f32::sqrt(sum) * scale;
        norm[0] = length;
        factor[0] = scale;
        if most > 0.0f32 {
            factor[0] = f32::min(most / (length + 1e-6f32), 1.0f32) * scale;
        }
    }
}

/// From sums of squares: `norm = scale · √Σ parts` and `factor = scale · min(1, most / (norm + 10⁻⁶))`, one value each,
/// as `torch.nn.utils.clip_grad_norm_` has it; `most = 0` clips nothing. `scale` is what the gradient must be multiplied
/// by anyway.
pub fn clip_factor(client: &Client, scale: f32, most: f32, parts: Buffer, norm: Buffer, factor: Buffer) {
    norm.expect("norm", 1);
    factor.expect("factor", 1);
    let [parts, norm, factor] = [parts, norm, factor].map(|buffer| buffer.argument(1));
    launch!(client, clip[grid(1), UNITS](parts, norm, factor, scale, most));
}
