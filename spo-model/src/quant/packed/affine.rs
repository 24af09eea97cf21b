//! `w = s (q − z)`: GPTQ (arXiv 2210.17323) and AWQ (arXiv 2306.00978), with the codes of a row side by side.

use super::as_bytes;
use super::coded::{Coded, Form};
use std::ops::Range;

/// Codes of a few bits with a scale and a zero point for each group of inputs.
#[derive(Debug)]
pub struct Affine {
    /// `[out, in]`
    pub dims: [usize; 2],
    /// Bits of a code: 2, 4 or 8.
    pub bits: usize,
    /// Codes `[out, ⌈in / (32 / bits)⌉]`, the first in the lowest bits.
    pub words: Vec<u32>,
    /// `[out, groups]`
    pub scales: Vec<f32>,
    /// `[out, groups]`
    pub zeros: Vec<u8>,
    /// The group of each input; `None`: as many inputs in a row for each.
    pub group_of: Option<Vec<u32>>,
}

impl Affine {
    /// Words of a row.
    pub fn words_of_row(inputs: usize, bits: usize) -> usize {
        inputs.div_ceil(32 / bits)
    }

    pub(super) fn decode(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        match self.bits {
            2 => self.unpack::<2, 16>(row, columns, out),
            4 => self.unpack::<4, 8>(row, columns, out),
            _ => self.unpack::<8, 4>(row, columns, out),
        }
    }

    /// Decodes codes of so many bits, so many of them to a word.
    fn unpack<const BITS: usize, const PACK: usize>(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let [rows, inputs] = self.dims;
        let (groups, width) = (self.scales.len() / rows, Self::words_of_row(inputs, BITS));
        let words = &self.words[row * width..(row + 1) * width];
        let (scales, zeros) = (&self.scales[row * groups..][..groups], &self.zeros[row * groups..][..groups]);
        let code = |word: u32, place: usize| (word >> (BITS * place) & ((1 << BITS) - 1)) as f32;
        let size = inputs / groups;
        if self.group_of.is_none() && [size, columns.start, columns.end].iter().all(|of| of.is_multiple_of(PACK)) {
            let words = words[columns.start / PACK..].iter().enumerate();
            for (out, (index, word)) in out.chunks_exact_mut(PACK).zip(words) {
                let group = (columns.start + index * PACK) / size;
                let (scale, zero) = (scales[group], f32::from(zeros[group]));
                out.iter_mut().enumerate().for_each(|(place, out)| *out = scale * (code(*word, place) - zero));
            }
            return;
        }
        for (out, input) in out.iter_mut().zip(columns) {
            let group = self.group_of.as_ref().map_or(input / size, |group_of| group_of[input] as usize);
            *out = scales[group] * (code(words[input / PACK], input % PACK) - f32::from(zeros[group]));
        }
    }

    pub(super) fn form(&self) -> Form {
        let [rows, inputs] = self.dims;
        Form::of_codes(self.bits, inputs * rows / self.scales.len().max(1), 0.0, true)
    }

    /// As codes whose zero points are in what is added; inputs of a group side by side.
    pub(super) fn code(&self, to: &mut Coded) -> Result<(), String> {
        let [rows, inputs] = self.dims;
        let (pack, width, size) = (32 / self.bits, Self::words_of_row(inputs, self.bits), to.form.block);
        to.order = self.group_of.as_ref().map(|group_of| {
            let mut order: Vec<u32> = (0..inputs as u32).collect();
            order.sort_by_key(|input| group_of[*input as usize]);
            order
        });
        if let (Some(order), Some(group_of)) = (&to.order, &self.group_of)
            && !order.iter().enumerate().all(|(at, input)| group_of[*input as usize] as usize == at / size)
        {
            return Err(format!("its groups have not {size} inputs each"));
        }
        for row in 0..rows {
            let words = &self.words[row * width..][..width];
            for (at, code) in to.codes[row * inputs..][..inputs].iter_mut().enumerate() {
                let input = to.order.as_ref().map_or(at, |order| order[at] as usize);
                *code = (words[input / pack] >> (self.bits * (input % pack)) & ((1 << self.bits) - 1)) as u8;
            }
        }
        to.scales.copy_from_slice(&self.scales);
        let each = to.adds.iter_mut().zip(self.scales.iter().zip(&self.zeros));
        each.for_each(|(add, (scale, zero))| *add = -(scale * f32::from(*zero)));
        Ok(())
    }

    pub(super) fn each_part(&self, part: &mut impl FnMut(&[u8])) {
        as_bytes(&self.words, u32::to_le_bytes, part);
        as_bytes(&self.scales, f32::to_le_bytes, part);
        part(&self.zeros);
        as_bytes(self.group_of.as_deref().unwrap_or_default(), u32::to_le_bytes, part);
    }
}
