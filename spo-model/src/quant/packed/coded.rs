//! Matrices as graphics cards keep them: codes of 4 or 8 bits, a book, and for each run of columns a scale and perhaps what
//! is added.

use super::Packed;

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
    pub(super) fn of_codes(bits: usize, block: usize, shift: f32, adds: bool) -> Self {
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
        let form = match self {
            Self::Rows(of) => of.form()?,
            Self::Affine(of) => of.form(),
            Self::Fp8(of) => of.form(),
            Self::Book(of) => of.form(),
            Self::Microscaling(of) => of.form(),
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
            Self::Rows(of) => of.code(&mut to),
            Self::Affine(of) => of.code(&mut to)?,
            Self::Fp8(of) => of.code(&mut to),
            Self::Book(of) => of.code(&mut to),
            Self::Microscaling(of) => of.code(&mut to),
        }
        Ok(to)
    }
}

/// The largest number that divides both.
pub fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
