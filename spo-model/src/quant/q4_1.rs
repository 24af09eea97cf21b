//! `d · q + m`: f16 scale `d` and minimum `m`, and 4 bits `q` per value.

use super::{Format, half_at, nibbles};

/// 32 values in 20 bytes.
pub const Q4_1: Format = Format { name: "Q4_1", code: 3, values: 32, bytes: 20, decode };

fn decode(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    nibbles::each(&block[4..], |place, bits| out[place] = f32::from(bits) * scale + minimum);
}
