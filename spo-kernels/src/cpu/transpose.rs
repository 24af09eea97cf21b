//! Transposing with AVX, eight by eight.

use std::arch::x86_64::{
    __m256, _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
    _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};

/// Turns `width` rows of `length` values, `stride` apart, into `length` rows of `width` values.
///
/// # Safety
/// The processor has AVX. `from` and `to` are that long, and `length` and `width` are multiples of 8.
#[target_feature(enable = "avx")]
pub(super) unsafe fn blocks(from: *const f32, stride: usize, length: usize, to: *mut f32, width: usize) {
    // No closures here: they would be compiled for the oldest processor.
    for first in (0..length).step_by(8) {
        for column in (0..width).step_by(8) {
            let mut rows = [_mm256_setzero_ps(); 8];
            for (row, values) in rows.iter_mut().enumerate() {
                // SAFETY: the block is inside `from`.
                *values = unsafe { _mm256_loadu_ps(from.add((column + row) * stride + first)) };
            }
            for (row, values) in transposed(rows).into_iter().enumerate() {
                // SAFETY: the block is inside `to`.
                unsafe { _mm256_storeu_ps(to.add((first + row) * width + column), values) };
            }
        }
    }
}

/// The columns of eight rows.
#[inline]
#[target_feature(enable = "avx")]
fn transposed([a, b, c, d, e, f, g, h]: [__m256; 8]) -> [__m256; 8] {
    let [p, q, r, s] = fours([a, b, c, d]);
    let [t, u, v, w] = fours([e, f, g, h]);
    [
        _mm256_permute2f128_ps::<0x20>(p, t),
        _mm256_permute2f128_ps::<0x20>(q, u),
        _mm256_permute2f128_ps::<0x20>(r, v),
        _mm256_permute2f128_ps::<0x20>(s, w),
        _mm256_permute2f128_ps::<0x31>(p, t),
        _mm256_permute2f128_ps::<0x31>(q, u),
        _mm256_permute2f128_ps::<0x31>(r, v),
        _mm256_permute2f128_ps::<0x31>(s, w),
    ]
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
