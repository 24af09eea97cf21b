//! Plain numbers: a block is one of them.

use super::{Format, half_at};
use half::bf16;

/// 32-bit floats.
pub const F32: Format = Format {
    name: "F32",
    code: 0,
    values: 1,
    bytes: 4,
    decode: |block, out| out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
};

/// 16-bit floats with 5 bits of exponent.
pub const F16: Format =
    Format { name: "F16", code: 1, values: 1, bytes: 2, decode: |block, out| out[0] = half_at(block, 0) };

/// 16-bit floats with 8 bits of exponent.
pub const BF16: Format = Format {
    name: "BF16",
    code: 30,
    values: 1,
    bytes: 2,
    decode: |block, out| out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
};
