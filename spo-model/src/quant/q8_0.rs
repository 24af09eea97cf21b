//! `d · q`: an f16 scale `d` and 8 bits `q` per value.

use super::{Format, half_at};

/// 32 values in 34 bytes.
pub const Q8_0: Format = Format { name: "Q8_0", code: 8, values: 32, bytes: 34, decode };

fn decode(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    for (out, byte) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(byte.cast_signed()) * scale;
    }
}
