//! Transposing with AVX, eight by eight.

use std::arch::x86_64::{
    __m256, _mm_loadu_ps, _mm256_set_m128, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps,
    _mm256_unpacklo_ps,
};

/// Turns `width` rows of `length` values, `stride` apart, into `length` rows of `width` values.
///
/// # Safety
/// The processor has AVX. `from` and `to` are that long, and `length` and `width` are multiples of 8.
#[target_feature(enable = "avx")]
pub(in crate::cpu) unsafe fn blocks(from: *const f32, stride: usize, length: usize, to: *mut f32, width: usize) {
    // No closures here: they would be compiled for the oldest processor.
    for first in (0..length).step_by(4) {
        for column in (0..width).step_by(8) {
            // Rows 4 to 7 beside rows 0 to 3: then no value has to change halves, and loads do what shuffles would.
            let mut rows = [_mm256_setzero_ps(); 4];
            for (row, values) in rows.iter_mut().enumerate() {
                // SAFETY: the block is inside `from`.
                let (low, high) = unsafe {
                    (
                        _mm_loadu_ps(from.add((column + row) * stride + first)),
                        _mm_loadu_ps(from.add((column + row + 4) * stride + first)),
                    )
                };
                *values = _mm256_set_m128(high, low);
            }
            for (row, values) in fours(rows).into_iter().enumerate() {
                // SAFETY: the block is inside `to`.
                unsafe { _mm256_storeu_ps(to.add((first + row) * width + column), values) };
            }
        }
    }
}

/// The columns of four rows, in either half of the vectors.
#[inline]
#[target_feature(enable = "avx")]
fn fours([a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
    let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
    let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
    [
        _mm256_shuffle_ps::<0x44>(ab, cd),
        _mm256_shuffle_ps::<0xee>(ab, cd),
        _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
        _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
    ]
}
