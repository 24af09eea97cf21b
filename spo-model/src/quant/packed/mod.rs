//! Matrices in the blocks that their file stores them in, decoded a part of a row at a time.
//!
//! What is loaded as numbers is decoded here too, so a weight that is kept in its blocks has the same numbers.

mod affine;
mod book;
pub mod coded;
mod fp8;
mod microscaling;
mod rows;

pub use affine::Affine;
pub use book::{Book, Scales};
pub use coded::{StoredBlocks, bytes_on_cards, greatest_common_divisor};
pub use fp8::Fp8;
pub use microscaling::Microscaling;
pub use rows::BlockRows;

use rayon::prelude::*;
use std::fmt;
use std::ops::Range;

/// A matrix `[out, in]` in blocks.
pub enum Packed {
    /// Rows of a GGUF file's blocks, or of 16-bit floats.
    Rows(BlockRows),
    /// GPTQ and AWQ.
    Affine(Affine),
    /// FP8 with a scale for each block.
    Fp8(Fp8),
    /// bitsandbytes' 4-bit code books.
    Book(Book),
    /// MXFP4 as gpt-oss stores it.
    Microscaling(Microscaling),
}

impl Packed {
    /// `[out, in]`
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Rows(of) => of.dims,
            Self::Affine(of) => of.dims,
            Self::Fp8(of) => of.dims,
            Self::Book(of) => of.dims,
            Self::Microscaling(of) => of.dims,
        }
    }

    /// Columns that are decoded together.
    pub fn unit(&self) -> usize {
        match self {
            Self::Rows(of) => of.format.values,
            Self::Microscaling(_) => microscaling::BLOCK,
            Self::Affine(of) => 32 / of.bits,
            Self::Fp8(_) | Self::Book(_) => 1,
        }
    }

    /// The numbers of some columns of a row, from one [`unit`](Self::unit) to another.
    ///
    /// # Panics
    /// If `out` is not as long, or the row or its columns are not there.
    pub fn decode(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let [rows, width] = self.dims();
        assert!(row < rows && columns.end <= width && columns.len() == out.len(), "outside the matrix");
        match self {
            Self::Rows(of) => of.decode(row, columns, out),
            Self::Affine(of) => of.decode(row, columns, out),
            Self::Fp8(of) => of.decode(row, columns, out),
            Self::Book(of) => of.decode(row, columns, out),
            Self::Microscaling(of) => of.decode(row, columns, out),
        }
    }

    /// All numbers, row after row.
    pub fn values(&self) -> Vec<f32> {
        let [rows, width] = self.dims();
        let mut values = vec![0.0; rows * width];
        let rows = values.par_chunks_mut(width.max(1)).enumerate();
        rows.for_each(|(row, values)| self.decode(row, 0..width, values));
        values
    }

    /// Place and value of the first number that is NaN or infinite.
    pub fn not_finite(&self) -> Option<(Vec<usize>, f32)> {
        let [rows, width] = self.dims();
        let of_row = |values: &mut Vec<f32>, row: usize| {
            self.decode(row, 0..width, values);
            let at = values.iter().position(|value| !value.is_finite())?;
            Some((vec![row, at], values[at]))
        };
        let found = (0..rows).into_par_iter().map_init(|| vec![0.0; width], of_row);
        found.find_first(Option::is_some).flatten()
    }

    /// All its bytes, in an order of their own.
    pub fn each_part(&self, mut part: impl FnMut(&[u8])) {
        match self {
            Self::Rows(of) => part(&of.bytes),
            Self::Affine(of) => of.each_part(&mut part),
            Self::Fp8(of) => of.each_part(&mut part),
            Self::Book(of) => of.each_part(&mut part),
            Self::Microscaling(of) => {
                part(&of.codes);
                part(&of.scales);
            }
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let mut bytes = 0;
        self.each_part(|part| bytes += part.len());
        bytes
    }

    /// What its bytes are, for hashing.
    pub fn form(&self) -> String {
        let dims = self.dims();
        match self {
            Self::Affine(of) => format!("{} bits {dims:?}", of.bits),
            Self::Book(Book { block, scales: Scales::Nested { nested, offset, .. }, .. }) => {
                format!("book {block} {nested} {offset:?} {dims:?}")
            }
            Self::Book(of) => format!("book {} {dims:?}", of.block),
            _ => format!("{} {dims:?}", self.name()),
        }
    }

    /// The name of its kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rows(of) => of.format.name,
            Self::Affine(_) => "affine",
            Self::Fp8(_) => "FP8",
            Self::Book(_) => "code book",
            Self::Microscaling(_) => "MXFP4",
        }
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.form())
    }
}

/// Hands out numbers as bytes, some at a time.
fn as_bytes<const N: usize, T: Copy>(numbers: &[T], bytes: fn(T) -> [u8; N], part: &mut impl FnMut(&[u8])) {
    for some in numbers.chunks(4096) {
        part(&some.iter().flat_map(|number| bytes(*number)).collect::<Vec<u8>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Format;

    /// One of each form, of 3 rows and 64 columns, out of bytes that look like noise.
    fn all() -> Vec<Packed> {
        let noise = |count: usize| -> Vec<u8> { (0..count).map(|i| (i * i * 31 + i * 7 + 13) as u8).collect() };
        let floats = |count: usize| -> Vec<f32> { (0..count).map(|i| 0.01 + 0.003 * i as f32).collect() };
        let dims = [3, 64];
        let format = Format::of_code(2).expect("Q4_0");
        let words = noise(3 * 8 * 4).as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let of_scales = Scales::Nested { codes: noise(6), book: floats(256), of: floats(2), nested: 4, offset: 0.25 };
        vec![
            Packed::Rows(BlockRows { format, dims, bytes: noise(3 * 2 * 18) }),
            Packed::Affine(Affine {
                dims,
                bits: 4,
                words,
                scales: floats(6),
                zeros: vec![8; 6],
                group_of: Some((0..64).map(|input| input % 2).collect()),
            }),
            Packed::Fp8(Fp8 { dims, codes: (0..192).map(|code| code as u8 & 0x7b).collect(), scales: floats(1) }),
            Packed::Book(Book {
                dims,
                codes: noise(96),
                book: std::array::from_fn(|i| i as f32 - 8.0),
                block: 32,
                scales: of_scales,
            }),
            Packed::Microscaling(Microscaling { dims, codes: noise(96), scales: vec![120; 6] }),
        ]
    }

    #[test]
    fn parts_of_rows_are_parts_of_the_whole() {
        for packed in all() {
            let values = packed.values();
            assert!(values.iter().any(|value| *value != values[0]), "{}", packed.name());
            for (row, of_row) in values.chunks(64).enumerate() {
                let mut part = vec![0.0; 32];
                packed.decode(row, 32..64, &mut part);
                assert_eq!(part, of_row[32..], "{} {row}", packed.name());
            }
            assert_eq!(packed.not_finite(), None, "{}", packed.name());
        }
    }

    #[test]
    fn a_number_that_is_none_is_found() {
        let mut codes = vec![0; 192];
        codes[70] = 0x7f;
        let packed = Packed::Fp8(Fp8 { dims: [3, 64], codes, scales: vec![1.0] });
        let (at, value) = packed.not_finite().expect("it has one");
        assert!(at == [1, 6] && value.is_nan());
    }

    #[test]
    fn every_byte_counts_in_the_parts() {
        for packed in all() {
            let mut parts = vec![];
            packed.each_part(|part| parts.extend_from_slice(part));
            assert!(parts.len() > 96, "{}", packed.name());
            assert_eq!(packed.bytes(), parts.len());
        }
    }
}
