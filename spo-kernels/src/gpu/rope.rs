//! Rotary position embedding in the rotate-half layout (Su et al. 2021, arXiv 2104.09864), in place.

use super::Buffer;
use super::launch::{UNITS, grid};
use cubecl::prelude::*;

/// Cosines and sines of a model's positions. Made once by the host: `sin` of a large angle is not exact on every device.
#[derive(Debug, Clone)]
pub struct Table {
    /// `[positions, turned / 2]`, f32.
    pub cos: Buffer,
    /// As `cos`.
    pub sin: Buffer,
    /// Channels of a head that turn; the rest stays.
    pub turned: usize,
}

/// Turns channel `i` and channel `i + half` of each head: `(a, b) → (a cos − b sin, b cos + a sin)`.
#[cube(launch_unchecked, create_dummy_kernel)]
fn rotate<E: Float>(
    x: &mut [E],
    cos: &[f32],
    sin: &[f32],
    positions: &[u32],
    heads: usize,
    dim: usize,
    half: usize,
    sign: f32,
) {
    let at = ABSOLUTE_POS as usize;
    let (row, channel) = (at / half, at % half);
    let token = row / heads;
    if token < positions.len() {
        let angle = positions[token] as usize * half + channel;
        let (cos, sin) = (cos[angle], sin[angle] * sign);
        let first = row * dim + channel;
        let (a, b) = (f32::cast_from(x[first]), f32::cast_from(x[first + half]));
        x[first] = E::cast_from(a * cos - b * sin);
        x[first + half] = E::cast_from(b * cos + a * sin);
    }
}

/// Which way to turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// By the angles: the forward pass.
    Forth,
    /// By their negatives: the gradient of the input from that of the output.
    Back,
}

/// Turns `x` `[tokens, heads, dim]` by the angles of `positions` `[tokens]`, u32 below the table's length.
pub fn turn<E: Float>(client: &Client, turn: Turn, table: Table, positions: Buffer, dim: usize, x: Buffer) {
    let (tokens, half) = (positions.len, table.turned / 2);
    assert!(half > 0 && 2 * half == table.turned && table.turned <= dim, "{} of {dim} channels", table.turned);
    table.cos.expect("cos", table.cos.len / half * half);
    table.sin.expect("sin", table.cos.len);
    let heads = x.len / (tokens.max(1) * dim);
    x.expect("x", tokens * heads * dim);
    let sign = if turn == Turn::Forth { 1.0 } else { -1.0f32 };
    let count = grid((tokens * heads * half).div_ceil(UNITS));
    let [x, cos, sin, positions] = [x, table.cos, table.sin, positions].map(|buffer| buffer.argument(1));
    launch!(client, rotate::<E>[count, UNITS](x, cos, sin, positions, heads, dim, half, sign));
}
