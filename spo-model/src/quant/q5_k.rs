//! `d · s · q − e · m`: f16 `d` and `e`, for each 32 values a scale `s` and a minimum `m` of 6 bits, and 5 bits `q` per
//! value, the highest ones apart.

use super::{Codes, Coding, Format, Unpacked, half_at, nibbles};

/// 256 values in 176 bytes: `d`, `e`, scales and minima, highest bits, lower bits.
pub const Q5_K: Format = Format {
    name: "Q5_K",
    code: 13,
    values: 256,
    bytes: 176,
    coding: Coding::Codes(Codes { bits: 5, group: 32, shift: 0.0, adds: true, unpack }),
};

fn unpack(block: &[u8], to: &mut Unpacked) {
    let (d, e) = (half_at(block, 0), half_at(block, 2));
    let (scales, bits) = block[4..].split_at(12);
    let (high, low) = bits.split_at(32);
    for (group, codes) in to.codes.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = nibbles::scale_and_minimum(scales, group);
        (to.scales[group], to.adds[group]) = (d * scale, -(e * minimum));
        for (code, (low, high)) in codes.iter_mut().zip(low[32 * (group / 2)..].iter().zip(high)) {
            *code = low >> (4 * (group % 2)) & 15 | (high >> group & 1) << 4;
        }
    }
}
