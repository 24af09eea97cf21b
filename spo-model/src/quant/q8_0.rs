//! `d · q`: an f16 scale `d` and 8 bits `q` per value.

use super::{Codes, Coding, Format, Unpacked, half_at};

/// 32 values in 34 bytes.
pub const Q8_0: Format = Format {
    name: "Q8_0",
    code: 8,
    values: 32,
    bytes: 34,
    coding: Coding::Codes(Codes { bits: 8, group: 32, shift: 128.0, adds: false, unpack }),
};

fn unpack(block: &[u8], to: &mut Unpacked) {
    to.scales[0] = half_at(block, 0);
    // From signed to unsigned numbers.
    to.codes.iter_mut().zip(&block[2..]).for_each(|(code, byte)| *code = byte ^ 128);
}
