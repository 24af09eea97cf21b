//! MXFP4 (OCP Microscaling Formats 1.0): 32 values of 4 bits (E2M1) that share a power of two (E8M0), as gpt-oss stores its
//! experts.

/// Values that share a scale.
pub const BLOCK: usize = 32;

/// The magnitudes of E2M1; bit 3 of a code is the sign.
const MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The values of blocks of 16 bytes, two codes each and the lower bits first, with a scale each.
pub fn values(blocks: &[u8], scales: &[u8]) -> Vec<f32> {
    let value = |code: u8, scale: f32| {
        let magnitude = MAGNITUDES[usize::from(code & 7)] * scale;
        if code & 8 == 0 { magnitude } else { -magnitude }
    };
    let of_block = |(block, scale): (&[u8], &u8)| {
        let scale = f64::from(i32::from(*scale) - 127).exp2() as f32;
        block.iter().flat_map(|byte| [value(byte & 15, scale), value(byte >> 4, scale)]).collect::<Vec<_>>()
    };
    blocks.chunks_exact(BLOCK / 2).zip(scales).flat_map(of_block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_scales_are_those_of_the_standard() {
        let mut block = [0u8; 16];
        (block[0], block[1], block[15]) = (0x71, 0xf2, 0xa0);
        let found = values(&[block, block].concat(), &[127, 124]);
        assert_eq!((found[0], found[1], found[2], found[3]), (0.5, 6.0, 1.0, -6.0));
        assert_eq!((found[30], found[31]), (0.0, -1.0));
        assert_eq!((found[32], found[33]), (0.5 / 8.0, 6.0 / 8.0));
        assert_eq!(found.len(), 64);
    }
}
