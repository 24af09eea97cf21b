//! Weights in 8 or 4 bits, back to numbers: word `j` of a row holds the codes of columns `j`, `j + words`,
//! `j + 2 · words`, …; a block of columns shares an f32 scale, by which the values of codes are multiplied, and perhaps
//! what is then added.

use super::Buffer;
use super::launch::{UNITS, grid};
use cubecl::prelude::*;

/// How a weight `[out, inputs]` is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bits of a code: 8 or 4.
    pub bits: usize,
    /// Columns that share a scale.
    pub block: usize,
    /// Columns; the codes of a row are padded to whole blocks.
    pub inputs: usize,
    /// Whether something is added: a row has that for each block behind its scales.
    pub adds: bool,
}

impl Layout {
    /// Words, and scales with what is added, of a row.
    pub fn row(self) -> [usize; 2] {
        let blocks = self.inputs.div_ceil(self.block);
        [blocks * self.block * self.bits / 32, blocks * (1 + usize::from(self.adds))]
    }
}

#[cube(launch_unchecked, create_dummy_kernel)]
fn unpack<E: Float>(
    packed: &[u32],
    scales: &[f32],
    values: &[f32],
    weight: &mut [E],
    first: usize,
    inputs: usize,
    words: usize,
    of_row: usize,
    block: usize,
    #[comptime] bits: u32,
    #[comptime] adds: bool,
) {
    let at = ABSOLUTE_POS as usize;
    let (row, word) = (at / words, at % words);
    if row * inputs < weight.len() {
        let codes = packed[(first + row) * words + word];
        #[unroll]
        for plane in 0..comptime!(32 / bits) {
            let column = word + plane as usize * words;
            if column < inputs {
                let code = (codes >> (plane * bits)) & comptime!((1u32 << bits) - 1);
                let of_block = (first + row) * of_row + column / block;
                let mut number = values[code as usize] * scales[of_block];
                if comptime!(adds) {
                    number += scales[of_block + of_row / 2];
                }
                weight[row * inputs + column] = E::cast_from(number);
            }
        }
    }
}

/// Rows from `first` of a packed weight, as many as `weight` `[rows, inputs]` holds. `packed` are 32-bit words, `scales`
/// f32, `values` f32 `[2^bits]` what the codes stand for.
pub fn rows<E: Float>(
    client: &Client,
    layout: Layout,
    first: usize,
    packed: Buffer,
    scales: Buffer,
    values: Buffer,
    weight: Buffer,
) {
    let (count, [words, of_row]) = (weight.len / layout.inputs, layout.row());
    assert!(matches!(layout.bits, 4 | 8), "codes of {} bits", layout.bits);
    weight.expect("weight", count * layout.inputs);
    values.expect("values", 1 << layout.bits);
    let out = scales.len / of_row;
    packed.expect("packed", out * words);
    scales.expect("scales", out * of_row);
    assert!(first + count <= out, "rows {first} to {} of {out}", first + count);
    let cubes = grid((count * words).div_ceil(UNITS));
    let [packed, scales, values, weight] = [packed, scales, values, weight].map(|buffer| buffer.argument(1));
    let Layout { bits, block, inputs, adds } = layout;
    launch!(client, unpack::<E>[cubes, UNITS](
        packed, scales, values, weight, first, inputs, words, of_row, block, bits as u32, adds
    ));
}
