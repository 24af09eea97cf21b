//! `d · s · (q − 32)`: an f16 `d`, for each 16 values a signed scale `s` of 8 bits, and 6 bits `q` per value, the two
//! highest ones apart.

use super::{Codes, Coding, Format, Unpacked, half_at};

/// 256 values in 210 bytes: lower bits, highest bits, scales, `d`.
pub const Q6_K: Format = Format {
    name: "Q6_K",
    code: 14,
    values: 256,
    bytes: 210,
    coding: Coding::Codes(Codes { bits: 6, group: 16, shift: 32.0, adds: false, unpack }),
};

fn unpack(block: &[u8], to: &mut Unpacked) {
    let (low, rest) = block.split_at(128);
    let (high, scales) = rest.split_at(64);
    let d = half_at(block, 208);
    // Each half of the block has four runs of twice 16 values.
    for (group, codes) in to.codes.chunks_exact_mut(16).enumerate() {
        let (half, run, side) = (group / 8, group % 8 / 2, 16 * (group % 2));
        let low = &low[64 * half + 32 * (run % 2) + side..];
        let high = &high[32 * half + side..];
        to.scales[group] = d * f32::from(scales[group].cast_signed());
        for (code, (low, high)) in codes.iter_mut().zip(low.iter().zip(high)) {
            *code = low >> (4 * (run / 2)) & 15 | (high >> (2 * run) & 3) << 4;
        }
    }
}
