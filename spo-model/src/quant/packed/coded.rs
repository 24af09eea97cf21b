//! Matrices as graphics cards keep them: codes of 4 or 8 bits, a book, and for each run of columns a scale and perhaps what
//! is added.

use super::{Affine, Book, Fp8, Microscaling, Packed};
use crate::quant::{Codes, Coding, Unpacked};

/// How codes become numbers: `values[code] · scale + add`.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    /// Bits of a code: 4 or 8.
    pub bits: usize,
    /// Columns that share a scale; their codes fill 32-bit words.
    pub block: usize,
    /// What the codes stand for, `2^bits`.
    pub values: Vec<f32>,
    /// Whether anything is added.
    pub adds: bool,
}

/// A matrix in that form.
#[derive(Debug)]
pub struct Coded {
    /// How its codes become numbers.
    pub form: Form,
    /// `[out, in]`
    pub codes: Vec<u8>,
    /// `[out, ⌈in / block⌉]`
    pub scales: Vec<f32>,
    /// As the scales; empty where nothing is added.
    pub adds: Vec<f32>,
    /// The inputs in the order of the columns, where that is another one.
    pub order: Option<Vec<u32>>,
}

/// A projection in the blocks of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBlocks {
    /// Bytes that it takes in host memory.
    pub bytes: usize,
    /// Bytes that it takes on a graphics card; `None` where it is numbers there.
    pub on_card: Option<usize>,
    /// What people call them: `Q4_K`, `GPTQ`, …
    pub kind: &'static str,
}

impl Form {
    /// Codes whose numbers are their own, less `shift`.
    fn of_codes(bits: usize, block: usize, shift: f32, adds: bool) -> Self {
        let bits = if bits <= 4 { 4 } else { 8 };
        Self { bits, block, values: (0..1 << bits).map(|code| code as f32 - shift).collect(), adds }
    }

    /// Bytes that a matrix `[out, in]` takes.
    pub fn bytes(&self, dims: [usize; 2]) -> usize {
        bytes_on_cards(dims, self.bits, self.block, self.adds)
    }
}

/// Bytes that a matrix `[out, in]` of codes takes on a card, so many of whose columns share a scale.
pub fn bytes_on_cards([out, inputs]: [usize; 2], bits: usize, block: usize, adds: bool) -> usize {
    let (blocks, bits) = (inputs.div_ceil(block.max(1)), if bits <= 4 { 4 } else { 8 });
    out * blocks * (block * bits / 8 + 4 * (1 + usize::from(adds)))
}

impl Packed {
    /// The form that a card keeps this matrix in; the error says what does not fit there.
    ///
    /// # Errors
    /// Numbers that are no codes, and blocks that end within a word of codes.
    pub fn form_on_cards(&self) -> Result<Form, String> {
        let [rows, inputs] = self.dims();
        let form = match self {
            Self::Rows(of) => match &of.format.coding {
                Coding::Codes(Codes { bits, group, shift, adds, .. }) => Form::of_codes(*bits, *group, *shift, *adds),
                Coding::Number(_) => return Err(format!("{} are numbers, not codes", of.format.name)),
            },
            Self::Affine(Affine { bits, scales, .. }) => {
                Form::of_codes(*bits, inputs * rows / scales.len().max(1), 0.0, true)
            }
            Self::Fp8(_) => Form { bits: 8, block: super::fp8::BLOCK, values: Fp8::values(), adds: false },
            // Blocks go on from row to row; their common parts do not.
            Self::Book(Book { book, block, .. }) => {
                Form { bits: 4, block: common(inputs, *block), values: book.to_vec(), adds: false }
            }
            Self::Microscaling(_) => {
                let block = super::microscaling::BLOCK;
                Form { bits: 4, block, values: Microscaling::values().to_vec(), adds: false }
            }
        };
        match form.block > 0 && (form.block * form.bits).is_multiple_of(32) {
            true => Ok(form),
            false => Err(format!("blocks of {} columns of {} bits do not fill words", form.block, form.bits)),
        }
    }

    /// The matrix in that form: the same numbers, but for GPTQ and AWQ, whose zero points are multiplied beforehand.
    ///
    /// # Errors
    /// As [`form_on_cards`](Self::form_on_cards), and groups of unlike numbers of inputs.
    pub fn coded(&self) -> Result<Coded, String> {
        let (form, [rows, inputs]) = (self.form_on_cards()?, self.dims());
        let (codes, scales) = (vec![0; rows * inputs], vec![0.0; rows * inputs.div_ceil(form.block)]);
        let adds = if form.adds { scales.clone() } else { vec![] };
        let mut to = Coded { form, codes, scales, adds, order: None };
        match self {
            Self::Rows(of) => {
                let Coding::Codes(codes) = &of.format.coding else { unreachable!("the form says that they are codes") };
                let (mut block, groups) = (Unpacked::default(), of.format.values / codes.group);
                for (index, bytes) in of.bytes.chunks_exact(of.format.bytes).enumerate() {
                    (codes.unpack)(bytes, &mut block);
                    to.codes[index * of.format.values..][..of.format.values]
                        .copy_from_slice(&block.codes[..of.format.values]);
                    to.scales[index * groups..][..groups].copy_from_slice(&block.scales[..groups]);
                    if codes.adds {
                        to.adds[index * groups..][..groups].copy_from_slice(&block.adds[..groups]);
                    }
                }
            }
            Self::Affine(of) => of.code(&mut to)?,
            Self::Fp8(of) => {
                to.codes.copy_from_slice(&of.codes);
                let blocks = inputs.div_ceil(super::fp8::BLOCK);
                for (row, scales) in to.scales.chunks_exact_mut(blocks.max(1)).enumerate() {
                    scales.copy_from_slice(&of.scales[row / super::fp8::BLOCK * blocks..][..blocks]);
                }
            }
            Self::Book(of) => {
                to.codes.iter_mut().enumerate().for_each(|(at, code)| *code = of.code(at));
                let block = to.form.block;
                to.scales.iter_mut().enumerate().for_each(|(at, scale)| *scale = of.scale(at * block));
            }
            Self::Microscaling(of) => {
                let bytes = to.codes.chunks_exact_mut(2).zip(&of.codes);
                bytes.for_each(|(codes, byte)| codes.copy_from_slice(&[byte & 15, byte >> 4]));
                to.scales.iter_mut().zip(&of.scales).for_each(|(to, scale)| *to = Microscaling::scale(*scale));
            }
        }
        Ok(to)
    }
}

/// The largest number that divides both.
pub fn common(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common(b, a % b) }
}
