//! `d · s · q − e · m`: f16 `d` and `e`, for each 32 values a scale `s` and a minimum `m` of 6 bits, and 4 bits `q` per
//! value.

use super::{Codes, Coding, Format, Unpacked, half_at, nibbles};

/// 256 values in 144 bytes: `d`, `e`, scales and minima, values.
pub const Q4_K: Format = Format {
    name: "Q4_K",
    code: 12,
    values: 256,
    bytes: 144,
    coding: Coding::Codes(Codes { bits: 4, group: 32, shift: 0.0, adds: true, unpack }),
};

fn unpack(block: &[u8], to: &mut Unpacked) {
    let (d, e) = (half_at(block, 0), half_at(block, 2));
    let (scales, bits) = block[4..].split_at(12);
    for (group, codes) in to.codes.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = nibbles::scale_and_minimum(scales, group);
        (to.scales[group], to.adds[group]) = (d * scale, -(e * minimum));
        let (bits, shift) = (&bits[32 * (group / 2)..], 4 * (group % 2));
        codes.iter_mut().zip(bits).for_each(|(code, byte)| *code = byte >> shift & 15);
    }
}
