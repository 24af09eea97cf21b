//! Tiles of 32 rows and 32 channels in shared memory, as 256 units fill them. Unit `u` is one of the eight
//! of row `u / 8`, and has columns `u % 8`, `u % 8 + 8`, … of it.

use super::product::pitch;
use cubecl::prelude::*;

/// Rows and columns of a tile.
pub(super) const TILE: usize = 32;
/// Units of a cube.
pub(super) const UNITS: usize = 256;
/// Units of a row, and how many columns are between those of one unit.
pub(super) const TEAM: usize = UNITS / TILE;
/// Columns of a unit.
pub(super) const OWN: usize = TILE / TEAM;
/// Score of a key that a row does not see.
pub(super) const UNSEEN: f32 = -1.0e30;

/// Parts of a head dimension.
pub(super) fn chunks(dim: usize) -> usize {
    dim.div_ceil(TILE)
}

/// Rows `first..first + 32` of a head of `x` `[tokens, heads, dim]`, channels of one chunk; zeros where there are none.
#[cube]
pub(super) fn load<E: Float, T: Float>(
    x: &[E],
    tile: &mut Shared<[T]>,
    first: usize,
    tokens: usize,
    heads: usize,
    head: usize,
    #[comptime] chunk: usize,
    #[comptime] dim: usize,
    #[comptime] matrix: bool,
) {
    let within = UNIT_POS as usize % TILE;
    let channel = comptime!(chunk * TILE) + within;
    #[unroll]
    for step in 0..OWN {
        let row = step * TEAM + UNIT_POS as usize / TILE;
        let token = first + row;
        let mut value = T::new(0.0);
        if token < tokens && channel < dim {
            value = T::cast_from(x[(token * heads + head) * dim + channel]);
        }
        tile[row * comptime!(pitch(matrix)) + within] = value;
    }
}

/// Writes what `mix` has summed for a chunk to a row of `x` `[tokens, heads, dim]`, times `factor`.
#[cube]
pub(super) fn store<E: Float>(
    x: &mut [E],
    values: &Array<f32>,
    factor: f32,
    start: usize,
    #[comptime] chunk: usize,
    #[comptime] dim: usize,
) {
    #[unroll]
    for i in 0..OWN {
        let channel = comptime!(chunk * TILE + i * TEAM) + UNIT_POS as usize % TEAM;
        if channel < dim {
            x[start + channel] = E::cast_from(values[comptime!(chunk * OWN + i)] * factor);
        }
    }
}

/// The score of a product of query and key.
#[cube]
pub(super) fn score(product: f32, scale: f32, cap: f32, #[comptime] capped: bool) -> f32 {
    if comptime!(capped) { f32::tanh(product * scale / cap) * cap } else { product * scale }
}

/// The derivative of [`score`] by the product, from the score.
#[cube]
pub(super) fn derivative(score: f32, scale: f32, cap: f32, #[comptime] capped: bool) -> f32 {
    if comptime!(capped) {
        let squashed = score / cap;
        scale * (1.0f32 - squashed * squashed)
    } else {
        scale
    }
}

/// Whether a row sees a key.
#[cube]
pub(super) fn sees(ranges: &[u32], row: usize, tokens: usize, key: usize) -> bool {
    let at = usize::min(row, tokens - 1) * 4;
    let key = key as u32;
    let in_prompt = key >= ranges[at] && key < ranges[at + 1];
    let in_own = key >= ranges[at + 2] && key < ranges[at + 3];
    row < tokens && (in_prompt || in_own)
}

#[cube]
pub(super) fn zeros(#[comptime] len: usize) -> Array<f32> {
    let mut values = Array::<f32>::new(len);
    #[unroll]
    for i in 0..len {
        values[i] = 0.0f32;
    }
    values
}
