//! `d · q + m`: f16 scale `d` and minimum `m`, and 5 bits `q` per value, the highest ones together.

use super::{Format, half_at, nibbles};

/// 32 values in 24 bytes.
pub const Q5_1: Format = Format { name: "Q5_1", code: 7, values: 32, bytes: 24, decode };

fn decode(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    nibbles::each_of_five(&block[4..], &block[8..], |place, bits| out[place] = f32::from(bits) * scale + minimum);
}
