//! Conversions between storage types.

use crate::storage::Storage;
use burn::tensor::Element;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use std::ops::Range;

/// A number that weights are stored as.
pub trait Weight: Element {
    /// Its type.
    const STORAGE: Storage;
    /// From its little-endian bytes, of which there are as many as it has.
    fn from_bytes(bytes: &[u8]) -> Self;
    /// Rounded.
    fn from_wide(value: f32) -> Self;
    /// Exactly.
    fn wide(self) -> f32;
}

macro_rules! weight {
    ($type:ty, $storage:ident, $from_wide:expr, $wide:expr) => {
        impl Weight for $type {
            const STORAGE: Storage = Storage::$storage;

            fn from_bytes(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("the bytes of one number"))
            }

            fn from_wide(value: f32) -> Self {
                $from_wide(value)
            }

            fn wide(self) -> f32 {
                $wide(self)
            }
        }
    };
}

weight!(f32, F32, |value| value, |value| value);
weight!(bf16, Bf16, bf16::from_f32, bf16::to_f32);
weight!(f16, F16, f16::from_f32, f16::to_f32);

/// Values converted at a time, so that no second copy of a tensor exists.
const BLOCK: usize = 4096;
/// Values between two reports of what has been read.
const PART: usize = 64 * BLOCK;

/// Place in a tensor of this shape, and value, of the first that is not a number or infinite.
pub fn first_not_finite<W: Weight>(values: &[W], shape: &[usize]) -> Option<(Vec<usize>, f32)> {
    // Block by block, without a way out inside one: that is as fast as memory.
    let finite = |value: &W| value.wide().is_finite();
    let (index, block) = values
        .chunks(BLOCK)
        .enumerate()
        .find(|(_, block)| !block.iter().map(finite).fold(true, |all, one| all & one))?;
    let at = index * BLOCK + block.iter().position(|value| !finite(value))?;
    let mut rest = at;
    let mut place: Vec<usize> = shape.iter().rev().map(|size| (rest % size, rest /= size).0).collect();
    place.reverse();
    Some((place, values[at].wide()))
}

/// Little-endian values stored as `from`. `done` is told each part of `bytes` that is not looked at again.
pub fn convert<W: Weight>(bytes: &[u8], from: Storage, mut done: impl FnMut(Range<usize>)) -> Vec<W> {
    let (mut out, mut start) = (Vec::with_capacity(bytes.len() / from.bytes()), 0);
    for part in bytes.chunks(PART * from.bytes()) {
        part.chunks(BLOCK * from.bytes()).for_each(|block| append(&mut out, block, from));
        done(start..start + part.len());
        start += part.len();
    }
    out
}

/// As [`convert`], for a matrix whose rows have `columns` values, transposed.
pub fn convert_transposed<W: Weight>(
    bytes: &[u8],
    from: Storage,
    columns: usize,
    mut done: impl FnMut(Range<usize>),
) -> Vec<W> {
    let columns = columns.max(1);
    let rows = bytes.len() / from.bytes() / columns;
    let mut out = vec![W::from_wide(0.0); rows * columns];
    let (mut start, mut row, mut part) = (0, 0, vec![]);
    for some_rows in bytes.chunks((PART / columns).max(1) * columns * from.bytes()) {
        part.clear();
        some_rows.chunks(BLOCK * from.bytes()).for_each(|block| append(&mut part, block, from));
        for values in part.chunks_exact(columns) {
            values.iter().enumerate().for_each(|(column, value)| out[column * rows + row] = *value);
            row += 1;
        }
        done(start..start + some_rows.len());
        start += some_rows.len();
    }
    out
}

fn append<W: Weight>(out: &mut Vec<W>, block: &[u8], from: Storage) {
    if from == W::STORAGE {
        out.extend(block.chunks_exact(from.bytes()).map(W::from_bytes));
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
    out.extend(values.into_iter().map(W::from_wide));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn there_and_back<W: Weight>(bits: &[u16], finite: fn(u16) -> bool) -> (Vec<u8>, Vec<u8>) {
        let bytes: Vec<u8> = bits.iter().filter(|b| finite(**b)).flat_map(|b| b.to_le_bytes()).collect();
        let wide: Vec<u8> = convert::<f32>(&bytes, W::STORAGE, |_| {}).into_iter().flat_map(f32::to_le_bytes).collect();
        let back: Vec<W> = convert(&wide, Storage::F32, |_| {});
        let back = burn::tensor::TensorData::new(back, [bytes.len() / 2]).as_bytes().to_vec();
        (bytes, back)
    }

    proptest! {
        #[test]
        fn widening_to_f32_and_back_is_exact(bits in proptest::collection::vec(any::<u16>(), 0..50)) {
            let (bytes, back) = there_and_back::<bf16>(&bits, |b| !bf16::from_bits(b).is_nan());
            prop_assert_eq!(bytes, back);
            let (bytes, back) = there_and_back::<f16>(&bits, |b| f16::from_bits(b).is_finite());
            prop_assert_eq!(bytes, back);
        }

        #[test]
        fn transposing_moves_every_value(rows in 1usize..7, columns in 1usize..7, values in proptest::collection::vec(-9f32..9.0, 36)) {
            let values = &values[..rows * columns];
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let mut read = 0;
            let turned: Vec<f32> = convert_transposed(&bytes, Storage::F32, columns, |part| read += part.len());
            prop_assert_eq!(read, bytes.len());
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                prop_assert_eq!(turned[column * rows + row], values[row * columns + column]);
            }
        }
    }

    #[test]
    fn parts_are_told_in_order_and_all_of_them() {
        let values: Vec<f32> = (0..PART + 3).map(|index| index as f32).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut parts = vec![];
        assert_eq!(convert::<f32>(&bytes, Storage::F32, |part| parts.push(part)), values);
        assert_eq!(parts, [0..4 * PART, 4 * PART..4 * PART + 12]);
        let mut parts = vec![];
        let turned: Vec<f32> = convert_transposed(&bytes, Storage::F32, 1, |part| parts.push(part));
        assert_eq!((turned, parts), (values, vec![0..4 * PART, 4 * PART..4 * PART + 12]));
    }
}
