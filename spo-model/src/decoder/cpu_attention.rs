//! Packed attention on the CPU: per group and head, without padding and without autodiff.
//!
//! Scores are matrix products over a whole group; the softmax runs over the visible part of each
//! row only. Groups run in parallel, each writing its own rows, so the result does not depend on
//! the number of threads.

use gemm::Parallelism;
use rayon::prelude::*;
use spo_data::GroupSpan;
use std::ops::Range;

/// Sizes of one attention call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Channels per head.
    pub dim: usize,
    /// How far back a token sees.
    pub window: Option<usize>,
}

impl Heads {
    fn q_width(self) -> usize {
        self.heads * self.dim
    }

    fn kv_width(self) -> usize {
        self.kv_heads * self.dim
    }

    fn scale(self) -> f32 {
        (self.dim as f32).sqrt().recip()
    }
}

/// Queries `[tokens, heads · dim]`, keys and values `[tokens, kv_heads · dim]`
/// → `[tokens, heads · dim]`.
pub(crate) fn forward(groups: &[GroupSpan], heads: Heads, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; q.len()];
    let outputs = split(groups, &mut y, heads.q_width());
    groups.par_iter().zip(outputs).for_each(|(group, y)| {
        let rows = group.start..group.start + group.tokens();
        let (q, k, v) =
            (part(q, &rows, heads.q_width()), part(k, &rows, heads.kv_width()), part(v, &rows, heads.kv_width()));
        let mut weights = vec![0.0; rows.len() * rows.len()];
        for head in 0..heads.heads {
            let kv_head = head * heads.kv_heads / heads.heads;
            weigh(
                group,
                heads,
                Head::of(q, heads.heads, head, heads.dim),
                Head::of(k, heads.kv_heads, kv_head, heads.dim),
                &mut weights,
            );
            let out = HeadMut::of(y, heads.heads, head, heads.dim);
            product(Square::of(&weights, rows.len()), Head::of(v, heads.kv_heads, kv_head, heads.dim), out, false, 1.0);
        }
    });
    y
}

/// Gradients of queries, keys and values for a gradient of the output; shapes as in [`forward`].
pub(crate) fn backward(
    groups: &[GroupSpan],
    heads: Heads,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    d_y: &[f32],
) -> [Vec<f32>; 3] {
    let (mut d_q, mut d_k, mut d_v) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    let outputs = split(groups, &mut d_q, heads.q_width())
        .into_iter()
        .zip(split(groups, &mut d_k, heads.kv_width()))
        .zip(split(groups, &mut d_v, heads.kv_width()))
        .collect::<Vec<_>>();
    groups.par_iter().zip(outputs).for_each(|(group, ((d_q, d_k), d_v))| {
        let rows = group.start..group.start + group.tokens();
        let (q, d_y) = (part(q, &rows, heads.q_width()), part(d_y, &rows, heads.q_width()));
        let (k, v) = (part(k, &rows, heads.kv_width()), part(v, &rows, heads.kv_width()));
        let mut weights = vec![0.0; rows.len() * rows.len()];
        let mut slopes = vec![0.0; rows.len() * rows.len()];
        for head in 0..heads.heads {
            let kv_head = head * heads.kv_heads / heads.heads;
            let of_q = |values| Head::of(values, heads.heads, head, heads.dim);
            let of_kv = |values| Head::of(values, heads.kv_heads, kv_head, heads.dim);
            weigh(group, heads, of_q(q), of_kv(k), &mut weights);
            // d_weights = d_y vᵀ, then the softmax's own derivative, row by row.
            outer(of_q(d_y), of_kv(v), &mut slopes, 1.0);
            visible_rows(group, heads.window, |row, visible| {
                let at = row * rows.len();
                softmax_slopes(&weights[at..at + rows.len()], &mut slopes[at..at + rows.len()], &visible);
            });
            let square = |values| Square::of(values, rows.len());
            let d_kv = |values| HeadMut::of(values, heads.kv_heads, kv_head, heads.dim);
            product(square(&slopes), of_kv(k), HeadMut::of(d_q, heads.heads, head, heads.dim), false, heads.scale());
            // Query heads that share a key head add up.
            product(square(&slopes).transposed(), of_q(q), d_kv(d_k), true, heads.scale());
            product(square(&weights).transposed(), of_q(d_y), d_kv(d_v), true, 1.0);
        }
    });
    [d_q, d_k, d_v]
}

/// Softmax weights `[rows, rows]` of one head; 0 where a token does not see another.
fn weigh(group: &GroupSpan, heads: Heads, q: Head, k: Head, weights: &mut [f32]) {
    outer(q, k, weights, heads.scale());
    let length = group.tokens();
    visible_rows(group, heads.window, |row, visible| softmax(&mut weights[row * length..(row + 1) * length], &visible));
}

/// Calls `visit` with each row of a group and the (prompt, own answer) columns it sees.
fn visible_rows(group: &GroupSpan, window: Option<usize>, mut visit: impl FnMut(usize, [Range<usize>; 2])) {
    let prompt = group.prompt_len;
    // Positions of an answer go on from the prompt's, so a window counts across the boundary.
    let first = |position: usize| window.map_or(0, |window| (position + 1).saturating_sub(window));
    for row in 0..prompt {
        visit(row, [first(row)..row + 1, 0..0]);
    }
    let mut start = prompt;
    for length in &group.answer_lens {
        for offset in 0..*length {
            let from = first(prompt + offset);
            let own = start + from.saturating_sub(prompt)..start + offset + 1;
            visit(start + offset, [from.min(prompt)..prompt, own]);
        }
        start += length;
    }
}

/// Softmax over the visible columns of a row; the others become 0.
fn softmax(row: &mut [f32], visible: &[Range<usize>; 2]) {
    pulp::Arch::new().dispatch(|| {
        let top = visible.iter().fold(f32::NEG_INFINITY, |top, range| top.max(lanes_max(&row[range.clone()])));
        let mut sum = 0.0;
        for range in visible {
            for score in &mut row[range.clone()] {
                *score = exp(*score - top);
            }
            sum += lanes_sum(&row[range.clone()]);
        }
        let factor = 1.0 / sum;
        let [first, second] = visible;
        row[..first.start].fill(0.0);
        row[first.clone()].iter_mut().for_each(|weight| *weight *= factor);
        let (gap, end) = if second.is_empty() { (row.len(), row.len()) } else { (second.start, second.end) };
        row[first.end..gap].fill(0.0);
        row[second.clone()].iter_mut().for_each(|weight| *weight *= factor);
        row[end..].fill(0.0);
    });
}

/// `slopes ← weights · (slopes − Σ weights · slopes)` over the visible columns; the others are 0
/// because their weights are.
fn softmax_slopes(weights: &[f32], slopes: &mut [f32], visible: &[Range<usize>; 2]) {
    pulp::Arch::new().dispatch(|| {
        let mut mean = 0.0;
        for range in visible {
            mean += lanes_dot(&weights[range.clone()], &slopes[range.clone()]);
        }
        for (weight, slope) in weights.iter().zip(slopes.iter_mut()) {
            *slope = *weight * (*slope - mean);
        }
    });
}

const LANES: usize = 16;

#[inline(always)]
fn lanes_max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut tops = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        (0..LANES).for_each(|lane| tops[lane] = larger(tops[lane], chunk[lane]));
    }
    tops.iter().chain(rest).fold(f32::NEG_INFINITY, |top, value| larger(top, *value))
}

#[inline(always)]
fn lanes_sum(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        (0..LANES).for_each(|lane| sums[lane] += chunk[lane]);
    }
    sums.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

#[inline(always)]
fn lanes_dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        (0..LANES).for_each(|lane| sums[lane] += a[lane] * b[lane]);
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// `eˣ` for x ≤ 0, within 2 units in the last place; 0 below −87.3. Range reduction by ln 2 in two
/// parts and the polynomial of Cephes' `expf`; written without a branch or a call, so that it
/// vectorises.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer
    let clamped = if x > -87.3 { x } else { -87.3 };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    // The low bits of `rounded` are the integer n: shifted into the exponent they make 2ⁿ.
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    if x > -87.3 { value * power } else { 0.0 }
}

fn part<'a>(values: &'a [f32], rows: &Range<usize>, width: usize) -> &'a [f32] {
    &values[rows.start * width..rows.end * width]
}

/// Each group's rows of an output, in order. Groups stand one behind the other.
fn split<'a>(groups: &[GroupSpan], mut values: &'a mut [f32], width: usize) -> Vec<&'a mut [f32]> {
    let mut parts = Vec::with_capacity(groups.len());
    for group in groups {
        let (part, rest) = values.split_at_mut(group.tokens() * width);
        parts.push(part);
        values = rest;
    }
    parts
}

/// One head's `[rows, dim]` inside `[rows, heads · dim]`.
#[derive(Clone, Copy)]
struct Head<'a> {
    values: &'a [f32],
    stride: usize,
    rows: usize,
    dim: usize,
}

impl<'a> Head<'a> {
    fn of(values: &'a [f32], heads: usize, head: usize, dim: usize) -> Self {
        let stride = heads * dim;
        Self { rows: values.len() / stride, values: &values[head * dim..], stride, dim }
    }
}

/// As [`Head`], to write to.
struct HeadMut<'a> {
    values: &'a mut [f32],
    stride: usize,
}

impl<'a> HeadMut<'a> {
    fn of(values: &'a mut [f32], heads: usize, head: usize, dim: usize) -> Self {
        Self { stride: heads * dim, values: &mut values[head * dim..] }
    }
}

/// A square matrix with its strides.
#[derive(Clone, Copy)]
struct Square<'a> {
    values: &'a [f32],
    size: usize,
    row: usize,
    column: usize,
}

impl<'a> Square<'a> {
    fn of(values: &'a [f32], size: usize) -> Self {
        assert_eq!(values.len(), size * size);
        Self { values, size, row: size, column: 1 }
    }

    fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }
}

/// `out = factor · a bᵀ`, `[rows, rows]`.
fn outer(a: Head, b: Head, out: &mut [f32], factor: f32) {
    assert!(a.rows == b.rows && a.dim == b.dim && out.len() == a.rows * a.rows);
    if a.rows == 0 {
        return;
    }
    // SAFETY: `Head::of` was given whole rows, so row `rows − 1` ends inside each slice; `out` has
    // `rows²` values and aliases neither.
    unsafe {
        gemm::gemm(
            a.rows,
            a.rows,
            a.dim,
            out.as_mut_ptr(),
            1,
            a.rows as isize,
            false,
            a.values.as_ptr(),
            1,
            a.stride as isize,
            b.values.as_ptr(),
            b.stride as isize,
            1,
            0.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `out = factor · a b`, or `out += …` if `add`: `[rows, rows] · [rows, dim]`.
fn product(a: Square, b: Head, out: HeadMut, add: bool, factor: f32) {
    assert_eq!(a.size, b.rows);
    assert!(a.size == 0 || out.values.len() >= (a.size - 1) * out.stride + b.dim);
    if a.size == 0 {
        return;
    }
    // SAFETY: `a` has `size²` values, `b` whole rows, and `out` was just checked to hold `size` rows
    // of `dim` values at its stride; it aliases neither.
    unsafe {
        gemm::gemm(
            a.size,
            b.dim,
            a.size,
            out.values.as_mut_ptr(),
            1,
            out.stride as isize,
            add,
            a.values.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.values.as_ptr(),
            1,
            b.stride as isize,
            1.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for step in 0..=873_000 {
            let x = -(step as f32) * 1e-4;
            let (found, expected) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(
                (found - expected).abs() <= 2.0 * f64::from(f32::EPSILON) * expected,
                "exp({x}) = {found}, not {expected}"
            );
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
    }
}
