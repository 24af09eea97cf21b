//! `d · (q − 8)`: an f16 scale `d` and 4 bits `q` per value.

use super::{Codes, Coding, Format, Unpacked, half_at, nibbles};

/// 32 values in 18 bytes.
pub const Q4_0: Format = Format {
    name: "Q4_0",
    code: 2,
    values: 32,
    bytes: 18,
    coding: Coding::Codes(Codes { bits: 4, group: 32, shift: 8.0, adds: false, unpack }),
};

fn unpack(block: &[u8], to: &mut Unpacked) {
    to.scales[0] = half_at(block, 0);
    nibbles::each(&block[2..], |place, bits| to.codes[place] = bits);
}
