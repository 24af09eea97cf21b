//! `d · s · q − e · m`: f16 `d` and `e`, for each 16 values a scale `s` and a minimum `m` of 4 bits, and 2 bits `q` per
//! value.

use super::{Codes, Coding, Format, Unpacked, half_at};

/// 256 values in 84 bytes: scales and minima, values, `d`, `e`.
pub const Q2_K: Format = Format {
    name: "Q2_K",
    code: 10,
    values: 256,
    bytes: 84,
    coding: Coding::Codes(Codes { bits: 2, group: 16, shift: 0.0, adds: true, unpack }),
};

fn unpack(block: &[u8], to: &mut Unpacked) {
    let (scales, bits) = block[..80].split_at(16);
    let (scale, minimum) = (half_at(block, 80), half_at(block, 82));
    for (group, codes) in to.codes.chunks_exact_mut(16).enumerate() {
        // 128 values are in 32 bytes, 32 at a time in two bits of each.
        let (half, shift) = (group / 8, group % 8 / 2 * 2);
        let bytes = &bits[32 * half + 16 * (group % 2)..];
        to.scales[group] = scale * f32::from(scales[group] & 15);
        to.adds[group] = -(minimum * f32::from(scales[group] >> 4));
        codes.iter_mut().zip(bytes).for_each(|(code, byte)| *code = byte >> shift & 3);
    }
}
