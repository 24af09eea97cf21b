//! Storage types of weights and the conversions between them.

use burn::tensor::DType;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use safetensors::Dtype;

/// The type in which a model keeps its weights and computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// 32-bit floats.
    F32,
    /// 16-bit floats with 8 bits of exponent.
    Bf16,
    /// 16-bit floats with 5 bits of exponent.
    F16,
}

impl Storage {
    /// The storage type of this name, `f32`, `bf16` or `f16`.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::F32, Self::Bf16, Self::F16].into_iter().find(|storage| storage.name() == name)
    }

    /// `f32`, `bf16` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// burn's name for it.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// The storage type of a file's tensor, if it is one that can be loaded.
    pub fn of_file(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F16 => Some(Self::F16),
            _ => None,
        }
    }

    /// The file's name for it.
    pub fn file_dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }

    /// The storage type of burn's floats, if it is one of the three.
    pub fn of_dtype(dtype: DType) -> Option<Self> {
        [Self::F32, Self::Bf16, Self::F16].into_iter().find(|storage| storage.dtype() == dtype)
    }
}

/// Values converted at a time, so that no second copy of a tensor exists.
const BLOCK: usize = 4096;

/// Little-endian values stored as `from`, as the bytes of `to`.
pub fn convert(bytes: &[u8], from: Storage, to: Storage) -> Vec<u8> {
    if from == to {
        return bytes.to_vec();
    }
    let mut out = Vec::with_capacity(bytes.len() / from.bytes() * to.bytes());
    for block in bytes.chunks(BLOCK * from.bytes()) {
        append(&mut out, block, from, to);
    }
    out
}

/// As [`convert`], for a matrix whose rows have `columns` values, transposed.
pub fn convert_transposed(bytes: &[u8], from: Storage, to: Storage, columns: usize) -> Vec<u8> {
    let (size, rows) = (from.bytes(), bytes.len() / from.bytes() / columns.max(1));
    let mut out = Vec::with_capacity(rows * columns * to.bytes());
    let mut column_bytes = Vec::with_capacity(rows * size);
    for column in 0..columns {
        column_bytes.clear();
        for row in 0..rows {
            let start = (row * columns + column) * size;
            column_bytes.extend_from_slice(&bytes[start..start + size]);
        }
        append(&mut out, &column_bytes, from, to);
    }
    out
}

fn append(out: &mut Vec<u8>, block: &[u8], from: Storage, to: Storage) {
    if from == to {
        out.extend_from_slice(block);
        return;
    }
    let values: Vec<f32> = match from {
        Storage::F32 => block.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Storage::Bf16 => {
            let halves: Vec<bf16> = block.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b)).collect();
            halves.to_f32_vec()
        }
        Storage::F16 => {
            let halves: Vec<f16> = block.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
            halves.to_f32_vec()
        }
    };
    match to {
        Storage::F32 => out.extend(values.into_iter().flat_map(f32::to_le_bytes)),
        Storage::Bf16 => out.extend(values.into_iter().flat_map(|v| bf16::from_f32(v).to_le_bytes())),
        Storage::F16 => out.extend(values.into_iter().flat_map(|v| f16::from_f32(v).to_le_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn widening_to_f32_and_back_is_exact(bits in proptest::collection::vec(any::<u16>(), 0..50)) {
            for storage in [Storage::Bf16, Storage::F16] {
                let finite = |b: &u16| match storage {
                    Storage::F16 => f16::from_bits(*b).is_finite(),
                    _ => bf16::from_bits(*b).is_finite(),
                };
                let bytes: Vec<u8> = bits.iter().filter(|b| finite(b)).flat_map(|b| b.to_le_bytes()).collect();
                let back = convert(&convert(&bytes, storage, Storage::F32), Storage::F32, storage);
                prop_assert_eq!(back, bytes);
            }
        }

        #[test]
        fn transposing_twice_changes_nothing(rows in 1usize..7, columns in 1usize..7, bits in proptest::collection::vec(any::<u16>(), 36)) {
            let bytes: Vec<u8> = bits[..rows * columns].iter().flat_map(|b| b.to_le_bytes()).collect();
            let once = convert_transposed(&bytes, Storage::F16, Storage::F16, columns);
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let (there, here) = (2 * (column * rows + row), 2 * (row * columns + column));
                prop_assert_eq!(&once[there..there + 2], &bytes[here..here + 2]);
            }
            prop_assert_eq!(convert_transposed(&once, Storage::F16, Storage::F16, rows), bytes);
        }
    }
}
