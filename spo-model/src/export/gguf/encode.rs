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

/// The order of a tensor's rows against this crate's, or what is added to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The same.
    AsIs,
    /// The rows of each head in neighbouring pairs: row `2j + h` is the one that stood at `h · dim/2 + j`.
    Pairs {
        /// Heads of the tensor.
        heads: usize,
    },
    /// All queries, then all keys, then all values, in place of the three of each head.
    Stacked {
        /// Heads of the tensor.
        heads: usize,
    },
    /// Weights of norms, stored here as the distance from 1.
    FromOne,
}

impl Order {
    /// The values, in rows of `width`, as the file has them.
    pub fn of_file(self, values: Vec<f32>, width: usize) -> Vec<f32> {
        match self {
            Self::AsIs => values,
            Self::Pairs { heads } => swap(&values, [heads, 2, values.len() / heads / width / 2], width),
            Self::Stacked { heads } => swap(&values, [1, heads, 3], values.len() / heads / 3),
            Self::FromOne => values.into_iter().map(|value| value + 1.0).collect(),
        }
    }

    /// Undoes [`of_file`](Self::of_file).
    pub fn of_model(self, values: Vec<f32>, width: usize) -> Vec<f32> {
        match self {
            Self::AsIs => values,
            Self::Pairs { heads } => swap(&values, [heads, values.len() / heads / width / 2, 2], width),
            Self::Stacked { heads } => swap(&values, [1, 3, heads], values.len() / heads / 3),
            Self::FromOne => values.into_iter().map(|value| value - 1.0).collect(),
        }
    }
}

/// `[outer, a, b, width]` → `[outer, b, a, width]`
fn swap(values: &[f32], [outer, a, b]: [usize; 3], width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for outer in 0..outer {
        for b_at in 0..b {
            for a_at in 0..a {
                let at = ((outer * a + a_at) * b + b_at) * width;
                out.extend_from_slice(&values[at..at + width]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_undone() {
        let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
        // Two heads of four rows of one value each.
        let pairs = Order::Pairs { heads: 2 }.of_file(values[..8].to_vec(), 1);
        assert_eq!(pairs, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        // Two heads of a query, a key and a value of two channels.
        let stacked = Order::Stacked { heads: 2 }.of_file(values[..12].to_vec(), 1);
        assert_eq!(stacked, [0.0, 1.0, 6.0, 7.0, 2.0, 3.0, 8.0, 9.0, 4.0, 5.0, 10.0, 11.0]);
        assert_eq!(Order::FromOne.of_file(vec![0.5], 1), [1.5]);
        for order in [Order::AsIs, Order::Pairs { heads: 2 }, Order::Stacked { heads: 4 }, Order::FromOne] {
            for width in [1, 2, 3] {
                assert_eq!(order.of_model(order.of_file(values.clone(), width), width), values, "{order:?} {width}");
            }
        }
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
