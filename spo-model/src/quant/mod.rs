//! How numbers are stored in files: plain, or in blocks that share scales. One file per format, one line in [`FORMATS`].
//!
//! A format takes one block at a time apart, so that a tensor needs no second copy. The formulas are those of
//! ggml's reference, operation by operation: results are equal bit for bit.
//! <https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c>

pub(crate) mod float;
mod nibbles;
pub mod packed;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

use half::f16;

/// A way of storing numbers.
#[derive(Debug)]
pub struct Format {
    /// As people write it, `Q4_K`.
    pub name: &'static str,
    /// GGUF's number for it.
    pub code: u32,
    /// Values of a block.
    pub values: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// What its bytes mean.
    pub coding: Coding,
}

/// What the bytes of a block mean.
#[derive(Debug)]
pub enum Coding {
    /// One number.
    Number(fn(&[u8]) -> f32),
    /// Codes, several of which share a scale.
    Codes(Codes),
}

/// Codes of a block: `scale · (code − shift) + add`.
#[derive(Debug)]
pub struct Codes {
    /// Bits that a code takes at least.
    pub bits: usize,
    /// Values that share `scale` and `add`.
    pub group: usize,
    /// What is taken off a code.
    pub shift: f32,
    /// Whether anything is added.
    pub adds: bool,
    /// Takes a block apart.
    pub unpack: fn(&[u8], &mut Unpacked),
}

/// A block taken apart, the largest there is.
#[derive(Debug)]
pub struct Unpacked {
    /// One of each value.
    pub codes: [u8; 256],
    /// One of each group.
    pub scales: [f32; 16],
    /// One of each group; left alone where nothing is added.
    pub adds: [f32; 16],
}

/// All formats that are read.
pub const FORMATS: &[Format] = &[
    float::F32,
    float::F16,
    float::BF16,
    q8_0::Q8_0,
    q4_0::Q4_0,
    q4_1::Q4_1,
    q5_0::Q5_0,
    q5_1::Q5_1,
    q2_k::Q2_K,
    q3_k::Q3_K,
    q4_k::Q4_K,
    q5_k::Q5_K,
    q6_k::Q6_K,
];

/// Names of formats that GGUF has and this crate does not read.
const REFUSED: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

impl Format {
    /// The format of this number.
    pub fn of_code(code: u32) -> Option<&'static Self> {
        FORMATS.iter().find(|format| format.code == code)
    }

    /// What a number stands for, for messages.
    pub fn describe(code: u32) -> String {
        let known = FORMATS.iter().map(|format| (format.code, format.name)).chain(REFUSED.iter().copied());
        let name = known.into_iter().find(|(number, _)| *number == code).map(|(_, name)| name.to_owned());
        name.unwrap_or_else(|| format!("type {code}"))
    }

    /// The names of all formats, comma-separated.
    pub fn names() -> String {
        FORMATS.iter().map(|format| format.name).collect::<Vec<_>>().join(", ")
    }

    /// Bytes of so many values, which fill blocks; `None` where they do not, or cannot be counted.
    pub fn size(&self, values: usize) -> Option<usize> {
        let blocks = values.is_multiple_of(self.values).then_some(values / self.values)?;
        blocks.checked_mul(self.bytes)
    }

    /// Decodes whole blocks.
    ///
    /// # Panics
    /// If `out` has not as many values as `bytes` has.
    pub fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(self.size(out.len()), Some(bytes.len()), "{} of {}", self.name, out.len());
        let blocks = bytes.chunks_exact(self.bytes).zip(out.chunks_exact_mut(self.values));
        match &self.coding {
            Coding::Number(number) => blocks.for_each(|(block, out)| out[0] = number(block)),
            Coding::Codes(codes) => {
                let mut unpacked = Unpacked::default();
                for (block, out) in blocks {
                    (codes.unpack)(block, &mut unpacked);
                    codes.decode(&unpacked, out);
                }
            }
        }
    }
}

impl Default for Unpacked {
    fn default() -> Self {
        Self { codes: [0; 256], scales: [0.0; 16], adds: [0.0; 16] }
    }
}

impl Codes {
    /// The numbers of a block.
    fn decode(&self, block: &Unpacked, out: &mut [f32]) {
        let groups = block.codes.chunks_exact(self.group).zip(out.chunks_exact_mut(self.group));
        for ((codes, out), (scale, add)) in groups.zip(block.scales.iter().zip(&block.adds)) {
            let shifted = |code: &u8| scale * (f32::from(*code) - self.shift);
            match self.adds {
                true => out.iter_mut().zip(codes).for_each(|(out, code)| *out = shifted(code) + add),
                false => out.iter_mut().zip(codes).for_each(|(out, code)| *out = shifted(code)),
            }
        }
    }
}

/// The 16-bit float at a place.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
