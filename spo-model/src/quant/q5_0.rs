//! `d · (q − 16)`: an f16 scale `d` and 5 bits `q` per value, the highest ones together.

use super::{Codes, Coding, Format, Unpacked, half_at, nibbles};

/// 32 values in 22 bytes.
pub const Q5_0: Format = Format {
    name: "Q5_0",
    code: 6,
    values: 32,
    bytes: 22,
    coding: Coding::Codes(Codes { bits: 5, group: 32, shift: 16.0, adds: false, unpack }),
};

fn unpack(block: &[u8], to: &mut Unpacked) {
    to.scales[0] = half_at(block, 0);
    nibbles::each_of_five(&block[2..], &block[6..], |place, bits| to.codes[place] = bits);
}
