//! What the formats of 32 values with 4 and 5 bits share, and those of 256 with 4 and 5 bits.

/// Calls `put` with each place of a block of 32 and its 4 bits: the low halves of 16 bytes come first, then the high ones.
pub fn each(bytes: &[u8], mut put: impl FnMut(usize, u8)) {
    for (index, byte) in bytes[..16].iter().enumerate() {
        put(index, byte & 15);
        put(index + 16, byte >> 4);
    }
}

/// As [`each`], with a fifth bit per value from a 32-bit word.
pub fn each_of_five(high: &[u8], low: &[u8], mut put: impl FnMut(usize, u8)) {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    each(low, |place, bits| put(place, bits | (((high >> place) & 1) as u8) << 4));
}

/// Scale and minimum, 6 bits each, of one of 8 groups of 32, out of 12 bytes.
pub fn scale_and_minimum(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, minimum) = match group {
        0..4 => (packed[group] & 63, packed[group + 4] & 63),
        _ => (packed[group + 4] & 15 | packed[group - 4] >> 6 << 4, packed[group + 4] >> 4 | packed[group] >> 6 << 4),
    };
    (f32::from(scale), f32::from(minimum))
}
