//! `d · s · (q − 32)`: an f16 `d`, for each 16 values a signed scale `s` of 8 bits, and 6 bits `q` per value, the two
//! highest ones apart.

use super::{Format, half_at};

/// 256 values in 210 bytes: lower bits, highest bits, scales, `d`.
pub const Q6_K: Format = Format { name: "Q6_K", code: 14, values: 256, bytes: 210, decode };

fn decode(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, scales) = rest.split_at(64);
    let d = half_at(block, 208);
    // Each half of the block has four runs of twice 16 values.
    for (group, out) in out.chunks_exact_mut(16).enumerate() {
        let (half, run, side) = (group / 8, group % 8 / 2, 16 * (group % 2));
        let low = &low[64 * half + 32 * (run % 2) + side..];
        let high = &high[32 * half + side..];
        let scale = d * f32::from(scales[group].cast_signed());
        for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
            let bits = low >> (4 * (run / 2)) & 15 | (high >> (2 * run) & 3) << 4;
            *out = scale * (f32::from(bits) - 32.0);
        }
    }
}
