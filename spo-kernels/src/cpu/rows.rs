//! Work on rows of numbers, on all threads.

use crate::cpu::vector::widest;
use rayon::prelude::*;

/// Values that one thread works on at a time: they stay in its cache.
const CHUNK: usize = 16 << 10;

/// Rows of `width` values in one chunk of work.
fn chunk_rows(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// New rows `[rows, width]`. `fill` gets the index of the first of some rows, and these rows, all zero.
pub fn build(rows: usize, width: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let [out] = build_many(rows, [width], |row, [out]| fill(row, out));
    out
}

/// As [`build`], several outputs of different widths at once.
pub fn build_many<const N: usize>(
    rows: usize,
    widths: [usize; N],
    fill: impl Fn(usize, [&mut [f32]; N]) + Sync,
) -> [Vec<f32>; N] {
    let mut outputs = widths.map(|width| Vec::<f32>::with_capacity(rows * width));
    let size = chunk_rows(widths.iter().copied().max().unwrap_or(1));
    let mut rest = outputs.each_mut().map(|output| output.spare_capacity_mut());
    let mut chunks = Vec::with_capacity(rows.div_ceil(size));
    for start in (0..rows).step_by(size) {
        let length = size.min(rows - start);
        let mut index = 0;
        let parts = rest.each_mut().map(|rest| {
            let (part, tail) = std::mem::take(rest).split_at_mut(length * widths[index]);
            *rest = tail;
            index += 1;
            part
        });
        chunks.push((start, parts));
    }
    let run = |(start, parts): (usize, [&mut [std::mem::MaybeUninit<f32>]; N])| {
        // Zeros go to the cache only: the rows are written next, by the same thread.
        let parts = parts.map(|part| {
            part.fill(std::mem::MaybeUninit::new(0.0));
            // SAFETY: every value was just written.
            unsafe { part.assume_init_mut() }
        });
        fill(start, parts);
    };
    if chunks.len() > 1 {
        chunks.into_par_iter().for_each(run)
    } else {
        chunks.into_iter().for_each(run)
    }
    for (output, width) in outputs.iter_mut().zip(widths) {
        // SAFETY: the chunks cover all rows, and `run` wrote each of their values.
        unsafe { output.set_len(rows * width) };
    }
    outputs
}

/// Changes rows in place: `change` gets the index of the first value of a part, and the part.
pub fn update(values: &mut [f32], change: impl Fn(usize, &mut [f32]) + Sync) {
    if values.len() <= CHUNK {
        return change(0, values);
    }
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(index, part)| change(index * CHUNK, part));
}

/// Visits rows of `width` values, each with a value of its own.
pub fn zip(values: &mut [f32], width: usize, of_rows: &mut [f32], visit: impl Fn(usize, &mut [f32], &mut f32) + Sync) {
    let size = chunk_rows(width);
    let parts = values.par_chunks_mut(size * width.max(1)).zip(of_rows.par_chunks_mut(size));
    parts.enumerate().for_each(|(index, (values, of_rows))| {
        let rows = values.chunks_mut(width.max(1)).zip(of_rows);
        rows.enumerate().for_each(|(row, (values, of_row))| visit(index * size + row, values, of_row));
    });
}

/// Changes three buffers of one length in place, beside a fourth that is read.
pub fn update_three(values: [&mut [f32]; 3], other: &[f32], change: impl Fn([&mut [f32]; 3], &[f32]) + Sync) {
    let [a, b, c] = values.map(|values| values.par_chunks_mut(CHUNK));
    let parts = a.zip(b).zip(c).zip(other.par_chunks(CHUNK));
    parts.for_each(|(((a, b), c), other)| change([a, b, c], other));
}

/// `into += values`
pub fn add(into: &mut [f32], values: &[f32]) {
    assert_eq!(into.len(), values.len());
    update(into, |start, part| {
        let values = &values[start..start + part.len()];
        widest!(part.iter_mut().zip(values).for_each(|(sum, value)| *sum += value));
    });
}

/// Sums of columns over rows: `visit` adds some rows, given by their range, to sums of `width` values. The
/// rows of each part, and the order of the parts, depend on the shape only.
pub fn sum_rows(rows: usize, width: usize, visit: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    const PART: usize = 64;
    let part = |start: usize| {
        let mut sums = vec![0.0; width];
        visit(start..(start + PART).min(rows), &mut sums);
        sums
    };
    let parts: Vec<Vec<f32>> = (0..rows.div_ceil(PART)).into_par_iter().map(|index| part(index * PART)).collect();
    let mut sums = vec![0.0; width];
    parts.iter().for_each(|part| sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value));
    sums
}

/// `Σ x²` in f64.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let parts: Vec<f64> = values.par_chunks(CHUNK).map(|part| widest!(super::vector::dot_f64(part, part))).collect();
    parts.iter().sum()
}
