//! Rows of a weight in 8 or 4 bits, for burn's products.

use super::{beside, buffer, typed};
use crate::gpu::Buffer;
use crate::gpu::dequantise::{Layout, rows};
use burn::tensor::DType;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use std::ops::Range;

/// Some rows of a weight as numbers, `[rows, inputs]` in `dtype`, one of f32, f16 and bf16: `values[code] · scale`, and what
/// is added.
///
/// # Shapes
/// - `packed`: 32-bit words of codes, `[out, words]`
/// - `scales`: f32, `[out, blocks]`, or with what is added `[out, 2 · blocks]`
/// - `values`: what the codes stand for, `[2^bits]`
pub fn dequantised(
    layout: Layout,
    [packed, scales]: [CubeTensor; 2],
    values: &[f32],
    range: Range<usize>,
    dtype: DType,
) -> CubeTensor {
    let (packed, scales) = (into_contiguous(packed), into_contiguous(scales));
    let weight = beside(&scales, [range.len(), layout.inputs], dtype);
    let values = Buffer::from_slice(&scales.client, values);
    typed!(dtype, E => {
        let (client, packed, scales, to) = (&scales.client, buffer(&packed), buffer(&scales), buffer(&weight));
        rows::<E>(client, layout, range.start, packed, scales, values, to);
    });
    weight
}
