//! Products with 8-bit weights in whole numbers: inputs are rounded to 16 bits, and the products of 32 inputs are summed
//! exactly, in 32 bits. So all processors count alike, and with several numbers in a lane twice or more as many at once as in
//! f32.

#![allow(clippy::needless_range_loop, reason = "loops over lanes become vector instructions")]

use super::block::{LANES, Q8Block};
use super::product::GROUP;
use super::rows::{Rows, STEP};
use crate::cpu::vector::widest;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Rows of activations in 16 bits, with a scale for every 32 inputs of a row: within 1/65,534 of the largest of them.
#[derive(Debug, Default)]
pub(super) struct Codes {
    /// Blocks of a row.
    per_row: usize,
    values: Vec<[i16; STEP]>,
    scales: Vec<f32>,
}

impl Codes {
    pub fn of(x: &Rows) -> Self {
        let per_row = x.width().div_ceil(STEP);
        let (mut values, mut scales) = (vec![[0; STEP]; x.len() * per_row], vec![0.0; x.len() * per_row]);
        let rows = values.par_chunks_mut(per_row.max(1)).zip(scales.par_chunks_mut(per_row.max(1)));
        rows.with_min_len(8).enumerate().for_each(|(row, (values, scales))| {
            widest!(encode(&x.steps(row)[..per_row], values, scales));
        });
        Self { per_row, values, scales }
    }

    fn rows(&self) -> usize {
        self.scales.len() / self.per_row.max(1)
    }
}

/// What is not finite makes its block's scale NaN, and with it all that the block is multiplied into.
#[inline(always)]
fn encode(blocks: &[[f32; STEP]], codes: &mut [[i16; STEP]], scales: &mut [f32]) {
    for ((block, codes), scale) in blocks.iter().zip(codes).zip(scales) {
        let (mut tops, mut zeros) = ([0.0f32; LANES], [0.0f32; LANES]);
        for half in 0..2 {
            for lane in 0..LANES {
                let x = block[half * LANES + lane];
                tops[lane] = if x.abs() > tops[lane] { x.abs() } else { tops[lane] };
                zeros[lane] += x * 0.0;
            }
        }
        let top = tops.iter().fold(0.0f32, |top, x| top.max(*x));
        *scale = top / f32::from(i16::MAX) + zeros.iter().sum::<f32>();
        let by = if *scale > 0.0 { *scale } else { 1.0 };
        for input in 0..STEP {
            codes[input] = (block[input] / by).round_ties_even() as i16;
        }
    }
}

/// The product of a group of panels with all rows, `[rows, GROUP · LANES]`; `blocks` are `[GROUP, inputs / 32]`.
pub(super) fn product(blocks: &[Q8Block], x: &Codes, out: &mut [f32]) {
    let mut task = Task { blocks, x, out };
    #[cfg(target_arch = "x86_64")]
    {
        if x86::has_vnni() {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { x86::vnni(&mut task) };
        }
        if x86::has_avx2() {
            // SAFETY: as above.
            return unsafe { x86::avx2(&mut task) };
        }
    }
    Arch::new().dispatch(task);
}

/// Sums of products of whole numbers, for the 16 outputs of a panel.
///
/// # Safety
/// The functions are called where the processor has their instructions.
trait Dot {
    /// Rows of the largest tile.
    const ROWS: usize;
    type Sums: Copy;
    type Weights: Copy;

    unsafe fn zero() -> Self::Sums;
    unsafe fn weights(pairs: &[i8; 2 * LANES]) -> Self::Weights;
    /// Adds two inputs times their weights.
    unsafe fn add(sums: Self::Sums, weights: Self::Weights, inputs: [i16; 2]) -> Self::Sums;
    /// Adds the sums, each times its output's scale and the row's.
    unsafe fn finish(sums: Self::Sums, scales: &[f32; LANES], scale: f32, totals: &mut [f32; LANES]);
}

struct Task<'a> {
    blocks: &'a [Q8Block],
    x: &'a Codes,
    out: &'a mut [f32],
}

impl Task<'_> {
    /// # Safety
    /// The processor has the instructions of `D`.
    #[inline(always)]
    unsafe fn run<D: Dot>(&mut self) {
        let rows = self.x.rows();
        // SAFETY: as the caller says.
        unsafe {
            if rows == 1 {
                self.tile::<D, 1, GROUP>(0, 0);
                return;
            }
            for panel in (0..GROUP).step_by(2) {
                let mut row = 0;
                while row < rows {
                    row += match (rows - row).min(D::ROWS) {
                        8.. => self.tile::<D, 8, 2>(row, panel),
                        4.. => self.tile::<D, 4, 2>(row, panel),
                        2.. => self.tile::<D, 2, 2>(row, panel),
                        _ => self.tile::<D, 1, 2>(row, panel),
                    };
                }
            }
        }
    }

    /// `ROWS` rows from `row` times `PANELS` panels from `panel`. Returns `ROWS`.
    ///
    /// # Safety
    /// The processor has the instructions of `D`.
    #[inline(always)]
    unsafe fn tile<D: Dot, const ROWS: usize, const PANELS: usize>(&mut self, row: usize, panel: usize) -> usize {
        let per_row = self.x.per_row;
        let of_row = |r: usize| (row + r) * per_row..(row + r + 1) * per_row;
        let codes: [&[[i16; STEP]]; ROWS] = std::array::from_fn(|r| &self.x.values[of_row(r)]);
        let scales: [&[f32]; ROWS] = std::array::from_fn(|r| &self.x.scales[of_row(r)]);
        let panels: [&[Q8Block]; PANELS] = std::array::from_fn(|p| &self.blocks[(panel + p) * per_row..][..per_row]);
        let mut totals = [[[0.0f32; LANES]; PANELS]; ROWS];
        for index in 0..per_row {
            // SAFETY: as the caller says.
            unsafe {
                let mut sums = [[D::zero(); PANELS]; ROWS];
                for step in 0..STEP / 2 {
                    let mut weights = [D::weights(&panels[0][index].values[step]); PANELS];
                    for p in 1..PANELS {
                        weights[p] = D::weights(&panels[p][index].values[step]);
                    }
                    for r in 0..ROWS {
                        let inputs = [codes[r][index][2 * step], codes[r][index][2 * step + 1]];
                        for p in 0..PANELS {
                            sums[r][p] = D::add(sums[r][p], weights[p], inputs);
                        }
                    }
                }
                for r in 0..ROWS {
                    for p in 0..PANELS {
                        D::finish(sums[r][p], &panels[p][index].scales, scales[r][index], &mut totals[r][p]);
                    }
                }
            }
        }
        let columns = GROUP * LANES;
        for r in 0..ROWS {
            for p in 0..PANELS {
                self.out[(row + r) * columns + (panel + p) * LANES..][..LANES].copy_from_slice(&totals[r][p]);
            }
        }
        ROWS
    }
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(mut self, _: V) {
        // SAFETY: these instructions are everywhere.
        unsafe { if V::F32_LANES >= 4 { self.run::<Plain<true>>() } else { self.run::<Plain<false>>() } }
    }
}

/// In plain Rust, for the compiler to make vectors of.
struct Plain<const FUSED: bool>;

impl<const FUSED: bool> Dot for Plain<FUSED> {
    const ROWS: usize = 2;
    type Sums = [i32; LANES];
    type Weights = [[i16; LANES]; 2];

    #[inline(always)]
    unsafe fn zero() -> Self::Sums {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn weights(pairs: &[i8; 2 * LANES]) -> Self::Weights {
        let mut weights = [[0; LANES]; 2];
        for lane in 0..LANES {
            weights[0][lane] = i16::from(pairs[2 * lane]);
            weights[1][lane] = i16::from(pairs[2 * lane + 1]);
        }
        weights
    }

    #[inline(always)]
    unsafe fn add(mut sums: Self::Sums, weights: Self::Weights, inputs: [i16; 2]) -> Self::Sums {
        for lane in 0..LANES {
            sums[lane] += i32::from(weights[0][lane]) * i32::from(inputs[0]);
            sums[lane] += i32::from(weights[1][lane]) * i32::from(inputs[1]);
        }
        sums
    }

    #[inline(always)]
    unsafe fn finish(sums: Self::Sums, scales: &[f32; LANES], scale: f32, totals: &mut [f32; LANES]) {
        for lane in 0..LANES {
            let (sum, scale, total) = (sums[lane] as f32, scales[lane] * scale, totals[lane]);
            totals[lane] = if FUSED { sum.mul_add(scale, total) } else { sum * scale + total };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![allow(unsafe_op_in_unsafe_fn, reason = "instructions that the callers of these functions vouch for")]

    use super::{Dot, LANES, Task};
    use std::arch::x86_64::{
        __m256i, __m512i, _mm_loadu_si128, _mm256_add_epi32, _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps,
        _mm256_setzero_si256, _mm256_storeu_ps, _mm512_cvtepi8_epi16, _mm512_cvtepi32_ps, _mm512_dpwssd_epi32,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512,
        _mm512_storeu_ps,
    };

    pub fn has_vnni() -> bool {
        is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("fma")
    }

    pub fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma")]
    pub fn vnni(task: &mut Task) {
        // SAFETY: this function is compiled for them.
        unsafe { task.run::<Vnni>() }
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(task: &mut Task) {
        // SAFETY: as above.
        unsafe { task.run::<Avx2>() }
    }

    fn both(inputs: [i16; 2]) -> i32 {
        // The first one lies in the low half.
        i32::from(inputs[0] as u16) | i32::from(inputs[1]) << 16
    }

    struct Vnni;

    impl Dot for Vnni {
        const ROWS: usize = 8;
        type Sums = __m512i;
        type Weights = __m512i;

        #[inline(always)]
        unsafe fn zero() -> Self::Sums {
            _mm512_setzero_si512()
        }

        #[inline(always)]
        unsafe fn weights(pairs: &[i8; 2 * LANES]) -> Self::Weights {
            _mm512_cvtepi8_epi16(_mm256_loadu_si256(pairs.as_ptr().cast()))
        }

        #[inline(always)]
        unsafe fn add(sums: Self::Sums, weights: Self::Weights, inputs: [i16; 2]) -> Self::Sums {
            _mm512_dpwssd_epi32(sums, weights, _mm512_set1_epi32(both(inputs)))
        }

        #[inline(always)]
        unsafe fn finish(sums: Self::Sums, scales: &[f32; LANES], scale: f32, totals: &mut [f32; LANES]) {
            let scale = _mm512_mul_ps(_mm512_loadu_ps(scales.as_ptr()), _mm512_set1_ps(scale));
            let total = _mm512_loadu_ps(totals.as_ptr());
            _mm512_storeu_ps(totals.as_mut_ptr(), _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scale, total));
        }
    }

    struct Avx2;

    impl Dot for Avx2 {
        const ROWS: usize = 2;
        type Sums = [__m256i; 2];
        type Weights = [__m256i; 2];

        #[inline(always)]
        unsafe fn zero() -> Self::Sums {
            [_mm256_setzero_si256(); 2]
        }

        #[inline(always)]
        unsafe fn weights(pairs: &[i8; 2 * LANES]) -> Self::Weights {
            let (low, high) = pairs.split_at(LANES);
            [
                _mm256_cvtepi8_epi16(_mm_loadu_si128(low.as_ptr().cast())),
                _mm256_cvtepi8_epi16(_mm_loadu_si128(high.as_ptr().cast())),
            ]
        }

        #[inline(always)]
        unsafe fn add(sums: Self::Sums, weights: Self::Weights, inputs: [i16; 2]) -> Self::Sums {
            let inputs = _mm256_set1_epi32(both(inputs));
            [
                _mm256_add_epi32(sums[0], _mm256_madd_epi16(weights[0], inputs)),
                _mm256_add_epi32(sums[1], _mm256_madd_epi16(weights[1], inputs)),
            ]
        }

        #[inline(always)]
        unsafe fn finish(sums: Self::Sums, scales: &[f32; LANES], scale: f32, totals: &mut [f32; LANES]) {
            let (scales, totals) = (scales.as_chunks::<8>().0, totals.as_chunks_mut::<8>().0);
            for half in 0..2 {
                let scale = _mm256_mul_ps(_mm256_loadu_ps(scales[half].as_ptr()), _mm256_set1_ps(scale));
                let total = _mm256_loadu_ps(totals[half].as_ptr());
                let sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[half]), scale, total);
                _mm256_storeu_ps(totals[half].as_mut_ptr(), sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::Block;
    use super::*;
    use crate::check::numbers;

    /// A group of panels of random weights, and their values in f64, `[GROUP · LANES, inputs]`.
    fn group(per_panel: usize, seed: u32) -> (Vec<Q8Block>, Vec<Vec<f64>>) {
        let blocks: Vec<Q8Block> = (0..GROUP * per_panel)
            .map(|at| {
                let values = numbers(LANES * STEP, seed + at as u32);
                Q8Block::of(&std::array::from_fn(|lane| std::array::from_fn(|input| values[lane * STEP + input])))
            })
            .collect();
        let of_output = |output: usize| {
            let panel = &blocks[output / LANES * per_panel..][..per_panel];
            panel.iter().flat_map(|block| block.tile()[output % LANES].map(f64::from)).collect()
        };
        let values = (0..GROUP * LANES).map(of_output).collect();
        (blocks, values)
    }

    fn rows(count: usize, width: usize) -> Rows {
        let mut rows = Rows::new(count, width);
        rows.rows_mut().zip(numbers(count * width, 7).chunks(width)).for_each(|(row, from)| row.copy_from_slice(from));
        rows
    }

    #[test]
    fn products_follow_f64_and_have_the_same_bits_by_all_instructions() {
        for per_panel in [1, 3, 18] {
            let (blocks, values) = group(per_panel, 3);
            for count in [1, 2, 5, 8, 19] {
                let x = rows(count, per_panel * STEP - 5);
                let codes = Codes::of(&x);
                let mut found = vec![0.0; count * GROUP * LANES];
                product(&blocks, &codes, &mut found);
                for (row, found) in found.chunks(GROUP * LANES).enumerate() {
                    for (found, weights) in found.iter().zip(&values) {
                        let terms = x.row(row).iter().zip(weights).map(|(x, w)| f64::from(*x) * w);
                        let size: f64 = terms.clone().map(f64::abs).sum();
                        assert!((f64::from(*found) - terms.sum::<f64>()).abs() < 1e-4 * size, "{per_panel} {count}");
                    }
                }
                for way in ways() {
                    let mut again = vec![f32::NAN; found.len()];
                    way(&mut Task { blocks: &blocks, x: &codes, out: &mut again });
                    assert_eq!(found, again, "{per_panel} {count}");
                }
            }
        }
    }

    type Way = fn(&mut Task);

    /// The ways of this processor.
    fn ways() -> Vec<Way> {
        #[cfg(target_arch = "x86_64")]
        {
            // SAFETY: the processor has the instructions; those of plain Rust are everywhere.
            let all: [(bool, Way); 4] = [
                (x86::has_avx2(), |task| unsafe { task.run::<Plain<true>>() }),
                (!x86::has_avx2(), |task| unsafe { task.run::<Plain<false>>() }),
                (x86::has_avx2(), |task| unsafe { x86::avx2(task) }),
                (x86::has_vnni(), |task| unsafe { x86::vnni(task) }),
            ];
            all.into_iter().filter(|(has, _)| *has).map(|(_, way)| way).collect()
        }
        #[cfg(not(target_arch = "x86_64"))]
        // SAFETY: plain Rust.
        vec![|task| unsafe { task.run::<Plain<true>>() }]
    }

    #[test]
    fn the_largest_numbers_fit() {
        let tile = [[-3.0f32; STEP]; LANES];
        let blocks: Vec<Q8Block> = (0..GROUP).map(|_| Q8Block::of(&tile)).collect();
        let mut x = Rows::new(1, STEP);
        x.row_mut(0).fill(2.0);
        let mut out = vec![0.0; GROUP * LANES];
        product(&blocks, &Codes::of(&x), &mut out);
        assert!(out.iter().all(|y| (y + 6.0 * STEP as f32).abs() < 1e-4), "{}", out[0]);
    }

    #[test]
    fn what_is_not_finite_is_not_lost() {
        let (blocks, _) = group(2, 5);
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = rows(3, 2 * STEP);
            x.row_mut(1)[40] = wrong;
            let mut out = vec![0.0; 3 * GROUP * LANES];
            product(&blocks, &Codes::of(&x), &mut out);
            for (row, out) in out.chunks(GROUP * LANES).enumerate() {
                assert!(out.iter().all(|y| y.is_nan() == (row == 1)), "{wrong}");
            }
        }
    }
}
