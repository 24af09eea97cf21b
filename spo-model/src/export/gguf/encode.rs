//! Numbers as GGUF stores them.

use half::f16;
use rayon::prelude::*;

/// Values that share a scale.
pub const BLOCK: usize = 32;
/// Bytes of a block: the scale and one byte per value.
const BLOCK_BYTES: usize = 2 + BLOCK;

/// How the values of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// `q8_0`
    Q8,
}

impl Encoding {
    /// GGUF's number for it.
    pub fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8 => 8,
        }
    }

    /// Bytes of so many values.
    pub fn bytes(self, values: usize) -> usize {
        match self {
            Self::F32 => 4 * values,
            Self::F16 => 2 * values,
            Self::Q8 => values / BLOCK * BLOCK_BYTES,
        }
    }

    /// Little-endian bytes of the values.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
            Self::Q8 => values.par_chunks_exact(BLOCK).flat_map_iter(quantise).collect(),
        }
    }
}

/// A scale that is the largest magnitude over 127, and whole numbers of it.
fn quantise(block: &[f32]) -> [u8; BLOCK_BYTES] {
    let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
    let mut bytes = [0; BLOCK_BYTES];
    bytes[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (byte, value) in bytes[2..].iter_mut().zip(block) {
        *byte = ((value * inverse).round() as i8).cast_unsigned();
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::quant::Format;

    #[test]
    fn blocks_are_within_half_a_step() {
        let values: Vec<f32> = (0..96).map(|i| ((i * i) as f32).sin() * 0.1).collect();
        let bytes = Encoding::Q8.encode(&values);
        assert_eq!(bytes.len(), Encoding::Q8.bytes(96));
        let decode = |bytes: &[u8], values: usize| {
            let mut out = vec![1.0; values];
            Format::of_code(Encoding::Q8.code()).unwrap().decode(bytes, &mut out);
            out
        };
        for (value, found) in values.iter().zip(decode(&bytes, 96)) {
            assert!((value - found).abs() < 0.1 / 127.0 * 0.51, "{value} {found}");
        }
        assert_eq!(decode(&Encoding::Q8.encode(&[0.0; 32]), 32), [0.0; 32]);
    }
}
