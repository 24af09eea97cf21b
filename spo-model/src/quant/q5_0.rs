//! `d · (q − 16)`: an f16 scale `d` and 5 bits `q` per value, the highest ones together.

use super::{Format, half_at, nibbles};

/// 32 values in 22 bytes.
pub const Q5_0: Format = Format { name: "Q5_0", code: 6, values: 32, bytes: 22, decode };

fn decode(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    nibbles::each_of_five(&block[2..], &block[6..], |place, bits| out[place] = (f32::from(bits) - 16.0) * scale);
}
