//! `d · q + m`: f16 scale `d` and minimum `m`, and 4 bits `q` per value.

use super::{Codes, Coding, Format, Unpacked, half_at, nibbles};

/// 32 values in 20 bytes.
pub const Q4_1: Format = Format {
    name: "Q4_1",
    code: 3,
    values: 32,
    bytes: 20,
    coding: Coding::Codes(Codes { bits: 4, group: 32, shift: 0.0, adds: true, unpack }),
};

fn unpack(block: &[u8], to: &mut Unpacked) {
    (to.scales[0], to.adds[0]) = (half_at(block, 0), half_at(block, 2));
    nibbles::each(&block[4..], |place, bits| to.codes[place] = bits);
}
