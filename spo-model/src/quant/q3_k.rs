//! `d · (s − 32) · (q − 4)`: an f16 `d`, for each 16 values a scale `s` of 6 bits, and 3 bits `q` per value, the highest
//! ones apart.

use super::{Codes, Coding, Format, Unpacked, half_at};

/// 256 values in 110 bytes: highest bits, two lower bits, scales, `d`.
pub const Q3_K: Format = Format {
    name: "Q3_K",
    code: 11,
    values: 256,
    bytes: 110,
    coding: Coding::Codes(Codes { bits: 3, group: 16, shift: 4.0, adds: false, unpack }),
};

fn unpack(block: &[u8], to: &mut Unpacked) {
    let (high, rest) = block.split_at(32);
    let (low, scales) = rest.split_at(64);
    let d = half_at(block, 108);
    for (group, codes) in to.codes.chunks_exact_mut(16).enumerate() {
        to.scales[group] = d * (f32::from(scale(scales, group)) - 32.0);
        let (half, shift, side) = (group / 8, group % 8 / 2 * 2, 16 * (group % 2));
        let bytes = low[32 * half + side..].iter().zip(&high[side..]);
        for (code, (low, high)) in codes.iter_mut().zip(bytes) {
            *code = low >> shift & 3 | (high >> (group / 2) & 1) << 2;
        }
    }
}

/// 4 bits of a scale are in the first 8 bytes, two in the last 4.
fn scale(packed: &[u8], group: usize) -> u8 {
    let low = packed[group % 8] >> (4 * (group / 8)) & 15;
    low | (packed[8 + group % 4] >> (2 * (group / 4)) & 3) << 4
}
