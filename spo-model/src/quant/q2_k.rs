//! `d · s · q − e · m`: f16 `d` and `e`, for each 16 values a scale `s` and a minimum `m` of 4 bits, and 2 bits `q` per
//! value.

use super::{Format, half_at};

/// 256 values in 84 bytes: scales and minima, values, `d`, `e`.
pub const Q2_K: Format = Format { name: "Q2_K", code: 10, values: 256, bytes: 84, decode };

fn decode(block: &[u8], out: &mut [f32]) {
    let (scales, bits) = block[..80].split_at(16);
    let (scale, minimum) = (half_at(block, 80), half_at(block, 82));
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        // 128 values are in 32 bytes, 32 at a time in two bits of each.
        let (half, shift) = (group / 8, group % 8 / 2 * 2);
        let bytes = &bits[32 * half + 16 * (group % 2)..];
        let (s, m) = (scale * f32::from(scales[group] & 15), minimum * f32::from(scales[group] >> 4));
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = s * f32::from(byte >> shift & 3) - m;
        }
    }
}
