//! `d · s · q − e · m`: f16 `d` and `e`, for each 32 values a scale `s` and a minimum `m` of 6 bits, and 4 bits `q` per
//! value.

use super::{Format, half_at, nibbles};

/// 256 values in 144 bytes: `d`, `e`, scales and minima, values.
pub const Q4_K: Format = Format { name: "Q4_K", code: 12, values: 256, bytes: 144, decode };

fn decode(block: &[u8], out: &mut [f32]) {
    let (d, e) = (half_at(block, 0), half_at(block, 2));
    let (scales, bits) = block[4..].split_at(12);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = nibbles::scale_and_minimum(scales, group);
        let (scale, minimum) = (d * scale, e * minimum);
        for (out, byte) in out.iter_mut().zip(&bits[32 * (group / 2)..]) {
            *out = scale * f32::from(byte >> (4 * (group % 2)) & 15) - minimum;
        }
    }
}
