//! Plain numbers: a block is one of them.

use super::{Coding, Format, half_at};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};

/// 32-bit floats.
pub const F32: Format = Format {
    name: "F32",
    code: 0,
    values: 1,
    bytes: 4,
    coding: Coding::Number(|block| f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
};

/// 16-bit floats with 5 bits of exponent.
pub const F16: Format =
    Format { name: "F16", code: 1, values: 1, bytes: 2, coding: Coding::Number(|block| half_at(block, 0)) };

/// 16-bit floats with 8 bits of exponent.
pub const BF16: Format = Format {
    name: "BF16",
    code: 30,
    values: 1,
    bytes: 2,
    coding: Coding::Number(|block| bf16::from_le_bytes([block[0], block[1]]).to_f32()),
};

/// 16-bit floats of either format as numbers, many at a time.
pub fn widen(format: &Format, bytes: &[u8], out: &mut [f32]) {
    let mut room = [0; 64];
    for (bytes, out) in bytes.chunks(2 * room.len()).zip(out.chunks_mut(room.len())) {
        let bits = &mut room[..out.len()];
        bits.iter_mut().zip(bytes.as_chunks().0).for_each(|(bits, bytes)| *bits = u16::from_le_bytes(*bytes));
        match format.code == BF16.code {
            true => bits.reinterpret_cast::<bf16>().convert_to_f32_slice(out),
            false => bits.reinterpret_cast::<f16>().convert_to_f32_slice(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_a_time_are_the_same_numbers() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for format in [&F16, &BF16] {
            let (mut one_by_one, mut many) = (vec![0.0; 1 << 16], vec![0.0; 1 << 16]);
            format.decode(&bytes, &mut one_by_one);
            widen(format, &bytes, &mut many);
            let same =
                |(one, other): (&f32, &f32)| one.to_bits() == other.to_bits() || (one.is_nan() && other.is_nan());
            assert!(one_by_one.iter().zip(&many).all(same), "{}", format.name);
        }
    }
}
