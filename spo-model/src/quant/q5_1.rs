//! `d · q + m`: f16 scale `d` and minimum `m`, and 5 bits `q` per value, the highest ones together.

use super::{Codes, Coding, Format, Unpacked, half_at, nibbles};

/// 32 values in 24 bytes.
pub const Q5_1: Format = Format {
    name: "Q5_1",
    code: 7,
    values: 32,
    bytes: 24,
    coding: Coding::Codes(Codes { bits: 5, group: 32, shift: 0.0, adds: true, unpack }),
};

fn unpack(block: &[u8], to: &mut Unpacked) {
    (to.scales[0], to.adds[0]) = (half_at(block, 0), half_at(block, 2));
    nibbles::each_of_five(&block[4..], &block[8..], |place, bits| to.codes[place] = bits);
}
