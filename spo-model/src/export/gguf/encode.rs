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

    /// The encoding of this number.
    pub fn of_code(code: u32) -> Option<Self> {
        [Self::F32, Self::F16, Self::Q8].into_iter().find(|encoding| encoding.code() == code)
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

    /// The values of these bytes.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Self::Q8 => bytes.as_chunks::<BLOCK_BYTES>().0.iter().flat_map(dequantise).collect(),
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

fn dequantise(block: &[u8; BLOCK_BYTES]) -> Vec<f32> {
    let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
    block[2..].iter().map(|byte| f32::from(byte.cast_signed()) * scale).collect()
}

/// Rows of `width` values of each head in the order of neighbouring pairs: row `2j + h` of a head is the
/// one that stood at `h · dim/2 + j`.
pub fn interleave(values: &[f32], heads: usize, width: usize) -> Vec<f32> {
    reorder(values, heads, width, |row, half| (row % 2) * half + row / 2)
}

/// Undoes [`interleave`].
pub fn deinterleave(values: &[f32], heads: usize, width: usize) -> Vec<f32> {
    reorder(values, heads, width, |row, half| 2 * (row % half) + row / half)
}

/// For each row of each head the row at `from(row, dim / 2)`.
fn reorder(values: &[f32], heads: usize, width: usize, from: impl Fn(usize, usize) -> usize) -> Vec<f32> {
    let dim = values.len() / heads / width;
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(dim * width) {
        for row in 0..dim {
            let at = from(row, dim / 2) * width;
            out.extend_from_slice(&head[at..at + width]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_halves_become_pairs_and_back() {
        // Two heads of four rows, one value each.
        let values: Vec<f32> = (0..8).map(|i| i as f32).collect();
        let interleaved = interleave(&values, 2, 1);
        assert_eq!(interleaved, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert_eq!(deinterleave(&interleaved, 2, 1), values);
    }

    #[test]
    fn blocks_are_within_half_a_step() {
        let values: Vec<f32> = (0..96).map(|i| ((i * i) as f32).sin() * 0.1).collect();
        let bytes = Encoding::Q8.encode(&values);
        assert_eq!(bytes.len(), Encoding::Q8.bytes(96));
        for (value, found) in values.iter().zip(Encoding::Q8.decode(&bytes)) {
            assert!((value - found).abs() < 0.1 / 127.0 * 0.51, "{value} {found}");
        }
        assert_eq!(Encoding::Q8.decode(&Encoding::Q8.encode(&[0.0; 32])), [0.0; 32]);
    }
}
