//! FP8 with a scale for each block of the matrix (DeepSeek-V3, arXiv 2412.19437).

use super::as_bytes;
use super::coded::{Coded, Form};
use std::ops::Range;
use std::sync::LazyLock;

/// Rows and columns of a block with one scale.
pub const BLOCK: usize = 128;

/// Codes of E4M3 and scales of their blocks.
#[derive(Debug)]
pub struct Fp8 {
    /// `[out, in]`
    pub dims: [usize; 2],
    /// `[out, in]`
    pub codes: Vec<u8>,
    /// `[⌈out / 128⌉, ⌈in / 128⌉]`
    pub scales: Vec<f32>,
}

/// The numbers of all codes.
static NUMBERS: LazyLock<[f32; 256]> = LazyLock::new(|| std::array::from_fn(|code| e4m3(code as u8)));

impl Fp8 {
    pub(super) fn decode(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let (width, numbers) = (self.dims[1], &*NUMBERS);
        let codes = &self.codes[row * width..][columns.clone()];
        let scales = &self.scales[row / BLOCK * width.div_ceil(BLOCK)..];
        for ((out, code), input) in out.iter_mut().zip(codes).zip(columns) {
            *out = numbers[usize::from(*code)] * scales[input / BLOCK];
        }
    }

    pub(super) fn form(&self) -> Form {
        Form { bits: 8, block: BLOCK, values: NUMBERS.to_vec(), adds: false }
    }

    pub(super) fn code(&self, to: &mut Coded) {
        to.codes.copy_from_slice(&self.codes);
        let blocks = self.dims[1].div_ceil(BLOCK);
        for (row, scales) in to.scales.chunks_exact_mut(blocks.max(1)).enumerate() {
            scales.copy_from_slice(&self.scales[row / BLOCK * blocks..][..blocks]);
        }
    }

    pub(super) fn each_part(&self, part: &mut impl FnMut(&[u8])) {
        part(&self.codes);
        as_bytes(&self.scales, f32::to_le_bytes, part);
    }
}

/// The number of a code of E4M3 without infinities (OCP 8-bit floating point, 1.0).
fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * f32::powi(2.0, exponent - 7),
    };
    if code & 128 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_has_the_values_of_its_standard() {
        for (code, value) in
            [(0x00, 0.0), (0x01, 1.0 / 512.0), (0x08, 1.0 / 64.0), (0x38, 1.0), (0x7e, 448.0), (0xc0, -2.0)]
        {
            assert_eq!(e4m3(code), value, "{code:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
    }
}
