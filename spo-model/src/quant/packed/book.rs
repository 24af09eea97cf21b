//! Codes of 4 bits that a book turns into numbers, with a scale for each block: bitsandbytes' nf4 and fp4 (QLoRA, arXiv
//! 2305.14314).

use super::as_bytes;
use super::coded::{Coded, Form, greatest_common_divisor};
use std::ops::Range;

/// Codes, book and scales. Blocks go on from row to row.
#[derive(Debug)]
pub struct Book {
    /// `[out, in]`
    pub dims: [usize; 2],
    /// Two in a byte, the higher bits first.
    pub codes: Vec<u8>,
    /// The number of each code.
    pub book: [f32; 16],
    /// Values of a block.
    pub block: usize,
    /// What the numbers of a block are multiplied by.
    pub scales: Scales,
}

/// Scales of blocks.
#[derive(Debug)]
pub enum Scales {
    /// Numbers.
    Plain(Vec<f32>),
    /// Codes of 8 bits, with a book, scales of their own and an offset: double quantisation.
    Nested {
        /// One for each block.
        codes: Vec<u8>,
        /// The numbers of all codes.
        book: Vec<f32>,
        /// Scales of `nested` codes each.
        of: Vec<f32>,
        /// Codes that share a scale.
        nested: usize,
        /// What is added.
        offset: f32,
    },
}

impl Scales {
    fn of_block(&self, block: usize) -> f32 {
        match self {
            Self::Plain(scales) => scales[block],
            Self::Nested { codes, book, of, nested, offset } => {
                book[usize::from(codes[block])] * of[block / nested] + offset
            }
        }
    }
}

impl Book {
    pub(super) fn decode(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let first = row * self.dims[1];
        let (mut at, end) = (first + columns.start, first + columns.end);
        let mut out = out.iter_mut();
        while at < end {
            let block = at / self.block;
            let scale = self.scales.of_block(block);
            let until = end.min((block + 1) * self.block);
            for (index, out) in (at..until).zip(&mut out) {
                *out = self.book[usize::from(self.code_at(index))] * scale;
            }
            at = until;
        }
    }

    /// The code at a place, counted from row to row.
    fn code_at(&self, at: usize) -> u8 {
        self.codes[at / 2] >> (4 * (1 - at % 2)) & 15
    }

    /// Blocks go on from row to row; their common parts do not.
    pub(super) fn form(&self) -> Form {
        let block = greatest_common_divisor(self.dims[1], self.block);
        Form { bits: 4, block, values: self.book.to_vec(), adds: false }
    }

    pub(super) fn code(&self, to: &mut Coded) {
        to.codes.iter_mut().enumerate().for_each(|(at, code)| *code = self.code_at(at));
        let parts = self.block / to.form.block;
        to.scales.iter_mut().enumerate().for_each(|(part, scale)| *scale = self.scales.of_block(part / parts));
    }

    pub(super) fn each_part(&self, part: &mut impl FnMut(&[u8])) {
        part(&self.codes);
        as_bytes(&self.book, f32::to_le_bytes, part);
        match &self.scales {
            Scales::Plain(scales) => as_bytes(scales, f32::to_le_bytes, part),
            Scales::Nested { codes, book, of, .. } => {
                part(codes);
                as_bytes(book, f32::to_le_bytes, part);
                as_bytes(of, f32::to_le_bytes, part);
            }
        }
    }
}
