//! MXFP4 (OCP Microscaling Formats 1.0): 32 values of 4 bits (E2M1) that share a power of two (E8M0), as gpt-oss stores its
//! experts.

use super::coded::{Coded, Form};
use std::ops::Range;

/// Values that share a scale.
pub const BLOCK: usize = 32;

/// The magnitudes of E2M1; bit 3 of a code is the sign.
const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// Codes and scales.
#[derive(Debug)]
pub struct Microscaling {
    /// `[out, in]`; `in` fills blocks.
    pub dims: [usize; 2],
    /// `[out, in / 2]`, two in a byte, the lower bits first.
    pub codes: Vec<u8>,
    /// `[out, in / 32]`
    pub scales: Vec<u8>,
}

impl Microscaling {
    pub(super) fn decode(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let first = (row * self.dims[1] + columns.start) / BLOCK;
        let blocks = self.codes[first * (BLOCK / 2)..].chunks_exact(BLOCK / 2).zip(&self.scales[first..]);
        for (out, (codes, scale)) in out.chunks_exact_mut(BLOCK).zip(blocks) {
            let numbers = numbers(*scale);
            for (out, byte) in out.chunks_exact_mut(2).zip(codes) {
                (out[0], out[1]) = (numbers[usize::from(byte & 15)], numbers[usize::from(byte >> 4)]);
            }
        }
    }

    pub(super) fn form(&self) -> Form {
        Form { bits: 4, block: BLOCK, values: numbers(127).to_vec(), adds: false }
    }

    pub(super) fn code(&self, to: &mut Coded) {
        let bytes = to.codes.chunks_exact_mut(2).zip(&self.codes);
        bytes.for_each(|(codes, byte)| codes.copy_from_slice(&[byte & 15, byte >> 4]));
        to.scales.iter_mut().zip(&self.scales).for_each(|(to, scale)| *to = power(*scale));
    }
}

/// `2^(scale − 127)`
fn power(scale: u8) -> f32 {
    // The exponent of an f32; at 0 half of the smallest normal number.
    f32::from_bits(if scale == 0 { 1 << 22 } else { u32::from(scale) << 23 })
}

/// The numbers of all codes in a block of this scale.
fn numbers(scale: u8) -> [f32; 16] {
    let scale = power(scale);
    std::array::from_fn(|code| {
        let magnitude = MAGNITUDES[code & 7] * scale;
        if code & 8 == 0 { magnitude } else { -magnitude }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_scales_are_those_of_the_standard() {
        let mut block = [0u8; 16];
        (block[0], block[1], block[15]) = (0x71, 0xf2, 0xa0);
        let all = Microscaling { dims: [2, 32], codes: [block, block].concat(), scales: vec![127, 124] };
        let mut found = [0.0; 64];
        let (first, second) = found.split_at_mut(32);
        all.decode(0, 0..32, first);
        all.decode(1, 0..32, second);
        assert_eq!((found[0], found[1], found[2], found[3]), (0.5, 6.0, 1.0, -6.0));
        assert_eq!((found[30], found[31]), (0.0, -1.0));
        assert_eq!((found[32], found[33]), (0.5 / 8.0, 6.0 / 8.0));
        for scale in 0..=255u8 {
            assert_eq!(numbers(scale)[2], f64::from(i32::from(scale) - 127).exp2() as f32, "{scale}");
        }
    }
}
