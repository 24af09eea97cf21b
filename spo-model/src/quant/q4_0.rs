//! `d · (q − 8)`: an f16 scale `d` and 4 bits `q` per value.

use super::{Format, half_at, nibbles};

/// 32 values in 18 bytes.
pub const Q4_0: Format = Format { name: "Q4_0", code: 2, values: 32, bytes: 18, decode };

fn decode(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    nibbles::each(&block[2..], |place, bits| out[place] = (f32::from(bits) - 8.0) * scale);
}
