//! See [`crate::attention`]: per group and head, without padding and without autodiff.
//!
//! A block of rows meets the keys that some of its rows see and no others: those of the prompt, and those of its own
//! answer up to the block's end. Groups and heads run in parallel, each into memory of its own, so the result does not
//! depend on the number of threads.

use super::{Matrix, product_into, rows, vector};
use crate::attention::{Group, Heads};
use crate::cpu::vector::widest;
use rayon::prelude::*;
use std::ops::Range;

/// Queries `[tokens, heads · dim]`, keys and values `[tokens, kv_heads · dim]`
/// → `[tokens, heads · dim]`; `sinks` are those of the heads, `[heads]`.
pub fn forward(groups: &[Group], heads: Heads, q: &[f32], k: &[f32], v: &[f32], sinks: Option<&[f32]>) -> Vec<f32> {
    let outputs = each_head(groups, heads, |group, head| {
        let ([q, k, v], sink) = (heads.slices(group, head, [q, k, v]), sinks.map(|sinks| sinks[head]));
        let (mut y, mut weights) = (vec![0.0; group.tokens() * heads.dim], vec![]);
        for block in blocks(group, heads.window) {
            block.weigh(heads, q, k, sink, &mut weights);
            let y = &mut y[block.rows.start * heads.dim..block.rows.end * heads.dim];
            for (columns, keys) in block.parts() {
                product_into(block.of(&weights, &columns), v.rows(keys), y, heads.dim, columns.start > 0);
            }
        }
        [y]
    });
    join(groups, heads, heads.heads, outputs.iter().map(|[y]| y))
}

/// Gradients of queries, keys and values for a gradient of the output; shapes as in [`forward`].
pub fn backward(groups: &[Group], heads: Heads, qkv: [&[f32]; 3], sinks: Option<&[f32]>, d_y: &[f32]) -> [Vec<f32>; 3] {
    let outputs = each_head(groups, heads, |group, head| {
        let ([q, k, v], sink) = (heads.slices(group, head, qkv), sinks.map(|sinks| sinks[head]));
        let d_y = heads.slice(group, heads.heads, head, d_y);
        let dim = heads.dim;
        let mut sums = [(); 3].map(|()| vec![0.0; group.tokens() * dim]);
        let [d_q, d_k, d_v] = &mut sums;
        let (mut weights, mut gradients, mut squashed) = (vec![], vec![], vec![]);
        for block in blocks(group, heads.window) {
            block.weigh(heads, q, k, sink, &mut weights);
            if let Some(cap) = heads.softcap {
                block.score(q, k, &mut squashed);
                widest!(squash(&mut squashed, heads.scale / cap));
            }
            let (q, d_y) = (q.rows(block.rows.clone()), d_y.rows(block.rows.clone()));
            gradients.resize(weights.len(), 0.0);
            for (columns, keys) in block.parts() {
                let to = &mut gradients[columns.start..];
                product_into(d_y, v.rows(keys).transposed(), to, block.columns(), false);
            }
            block.softmax_gradient(heads.scale, &weights, &squashed, &mut gradients);
            let d_q = &mut d_q[block.rows.start * dim..block.rows.end * dim];
            for (columns, keys) in block.parts() {
                let to = keys.start * dim..keys.end * dim;
                let (weights, gradients) = (block.of(&weights, &columns), block.of(&gradients, &columns));
                product_into(gradients, k.rows(keys), d_q, dim, columns.start > 0);
                product_into(gradients.transposed(), q, &mut d_k[to.clone()], dim, true);
                product_into(weights.transposed(), d_y, &mut d_v[to], dim, true);
            }
        }
        sums
    });
    let of = |index: usize, count| join(groups, heads, count, outputs.iter().map(|sums| &sums[index]));
    [of(0, heads.heads), of(1, heads.kv_heads), of(2, heads.kv_heads)]
}

impl Heads {
    /// One head's `[rows, dim]` of a group in `[tokens, count · dim]`.
    fn slice<'a>(self, group: &Group, count: usize, head: usize, values: &'a [f32]) -> Matrix<'a> {
        let stride = count * self.dim;
        Matrix::strided(&values[group.start * stride + head * self.dim..], group.tokens(), self.dim, stride)
    }

    /// Queries of a query head, keys and values of the head they belong to.
    fn slices<'a>(self, group: &Group, head: usize, [q, k, v]: [&'a [f32]; 3]) -> [Matrix<'a>; 3] {
        let kv = head * self.kv_heads / self.heads;
        let of_kv = |values| self.slice(group, self.kv_heads, kv, values);
        [self.slice(group, self.heads, head, q), of_kv(k), of_kv(v)]
    }
}

/// Runs `f` for every group and query head; the results group by group.
fn each_head<T: Send>(groups: &[Group], heads: Heads, f: impl Fn(&Group, usize) -> T + Sync) -> Vec<T> {
    let task = |index: usize| f(&groups[index / heads.heads], index % heads.heads);
    (0..groups.len() * heads.heads).into_par_iter().with_max_len(1).map(task).collect()
}

/// `[tokens, count · dim]` from the query heads' `[rows, dim]` of each group; heads that belong to one of `count` add up.
fn join<'a>(groups: &[Group], heads: Heads, count: usize, parts: impl Iterator<Item = &'a Vec<f32>>) -> Vec<f32> {
    let (parts, dim, shared) = (parts.collect::<Vec<_>>(), heads.dim, heads.heads / count);
    let tokens = groups.last().map_or(0, |group| group.start + group.tokens());
    rows::build(tokens, count * dim, |first, out| {
        let mut group = groups.partition_point(|group| group.start + group.tokens() <= first);
        for (token, out) in (first..).zip(out.chunks_exact_mut(count * dim)) {
            while groups[group].start + groups[group].tokens() <= token {
                group += 1;
            }
            let at = (token - groups[group].start) * dim;
            for (head, out) in out.chunks_exact_mut(dim).enumerate() {
                for part in &parts[group * heads.heads + head * shared..][..shared] {
                    out.iter_mut().zip(&part[at..at + dim]).for_each(|(sum, value)| *sum += value);
                }
            }
        }
    })
}

/// Rows of a group that are computed together, and the keys that one of them sees.
struct Block {
    rows: Range<usize>,
    /// Position of the first row.
    first: usize,
    prompt: Range<usize>,
    own: Range<usize>,
    /// Where in the group the rows' answer starts, and its position; `None` for rows of the prompt.
    answer: Option<(usize, usize)>,
    window: Option<usize>,
}

/// Most rows of a block.
const BLOCK: usize = 128;

/// The first position that a token at `position` sees.
fn lowest(window: Option<usize>, position: usize) -> usize {
    window.map_or(0, |window| (position + 1).saturating_sub(window))
}

/// The rows of a group, block by block: the prompt's, then each answer's. Positions of an answer go on from the
/// prompt's, so a window counts across the boundary.
fn blocks(group: &Group, window: Option<usize>) -> Vec<Block> {
    let prompt_len = group.prompt_len;
    let mut blocks = vec![];
    for first in (0..prompt_len).step_by(BLOCK) {
        let rows = first..(first + BLOCK).min(prompt_len);
        let prompt = lowest(window, first)..rows.end;
        blocks.push(Block { rows, first, prompt, own: 0..0, answer: None, window });
    }
    let mut start = prompt_len;
    for &length in &group.answer_lens {
        for offset in (0..length).step_by(BLOCK) {
            let (rows, first) = (start + offset..start + (offset + BLOCK).min(length), prompt_len + offset);
            let lowest = lowest(window, first);
            let (prompt, own) =
                (lowest.min(prompt_len)..prompt_len, start + lowest.saturating_sub(prompt_len)..rows.end);
            blocks.push(Block { rows, first, prompt, own, answer: Some((start, prompt_len)), window });
        }
        start += length;
    }
    blocks
}

impl Block {
    fn columns(&self) -> usize {
        self.prompt.len() + self.own.len()
    }

    /// The columns of a block's scores with the keys they stand for.
    fn parts(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let prompt = self.prompt.len();
        let parts = [(0..prompt, self.prompt.clone()), (prompt..self.columns(), self.own.clone())];
        parts.into_iter().filter(|(columns, _)| !columns.is_empty())
    }

    /// Some columns of `[rows, columns]`.
    fn of<'a>(&self, values: &'a [f32], columns: &Range<usize>) -> Matrix<'a> {
        Matrix::strided(&values[columns.start..], self.rows.len(), columns.len(), self.columns())
    }

    /// The columns that a row sees: some of the prompt's, some of its own answer's.
    fn visible(&self, row: usize) -> [Range<usize>; 2] {
        let position = self.first + row;
        let lowest = lowest(self.window, position);
        let Some((start, prompt_len)) = self.answer else {
            let columns = self.columns();
            return [lowest - self.prompt.start..position + 1 - self.prompt.start, columns..columns];
        };
        let own = start + lowest.saturating_sub(prompt_len)..start + position + 1 - prompt_len;
        let column = |key: usize| self.prompt.len() + key - self.own.start;
        [lowest.min(prompt_len) - self.prompt.start..self.prompt.len(), column(own.start)..column(own.end)]
    }

    /// `q kᵀ`
    fn score(&self, q: Matrix, k: Matrix, scores: &mut Vec<f32>) {
        scores.resize(self.rows.len() * self.columns(), 0.0);
        for (columns, keys) in self.parts() {
            let to = &mut scores[columns.start..];
            product_into(q.rows(self.rows.clone()), k.rows(keys).transposed(), to, self.columns(), false);
        }
    }

    /// Softmax weights `[rows, columns]`, 0 where a token does not see another.
    fn weigh(&self, heads: Heads, q: Matrix, k: Matrix, sink: Option<f32>, weights: &mut Vec<f32>) {
        self.score(q, k, weights);
        let columns = self.columns();
        for (row, weights) in weights.chunks_exact_mut(columns).enumerate() {
            let visible = self.visible(row);
            widest!(softmax(weights, &visible, heads, sink));
        }
    }

    /// `gradients ← scale · weights · (gradients − Σ weights · gradients)`, 0 where the weights are. `squashed` has the `tanh` of
    /// capped scores, and is empty without a cap.
    fn softmax_gradient(&self, scale: f32, weights: &[f32], squashed: &[f32], gradients: &mut [f32]) {
        let columns = self.columns();
        widest!({
            for (weights, gradients) in weights.chunks_exact(columns).zip(gradients.chunks_exact_mut(columns)) {
                let mean = vector::dot(weights, gradients);
                weights
                    .iter()
                    .zip(gradients)
                    .for_each(|(weight, gradient)| *gradient = scale * *weight * (*gradient - mean));
            }
            gradients.iter_mut().zip(squashed).for_each(|(gradient, t)| *gradient *= 1.0 - t * t);
        });
    }
}

/// `tanh(factor · z)`
#[inline(always)]
fn squash(values: &mut [f32], factor: f32) {
    values.iter_mut().for_each(|z| *z = vector::tanh(*z * factor));
}

/// Scores to softmax weights over the visible columns of a row; the others become 0.
#[inline(always)]
fn softmax(row: &mut [f32], visible: &[Range<usize>; 2], heads: Heads, sink: Option<f32>) {
    let Heads { scale, softcap, .. } = heads;
    let mut top = sink.unwrap_or(f32::NEG_INFINITY);
    for range in visible {
        let row = &mut row[range.clone()];
        match softcap {
            Some(cap) => {
                squash(row, scale / cap);
                row.iter_mut().for_each(|z| *z *= cap);
            }
            None => row.iter_mut().for_each(|z| *z *= scale),
        }
        top = top.max(vector::max(row));
    }
    let mut sum = sink.map_or(0.0, |sink| vector::exp(sink - top));
    for range in visible {
        let row = &mut row[range.clone()];
        row.iter_mut().for_each(|z| *z = vector::exp(*z - top));
        sum += vector::sum(row);
    }
    let factor = 1.0 / sum;
    let [first, second] = visible;
    row[..first.start].fill(0.0);
    row[first.clone()].iter_mut().for_each(|weight| *weight *= factor);
    row[first.end..second.start].fill(0.0);
    row[second.clone()].iter_mut().for_each(|weight| *weight *= factor);
    row[second.end..].fill(0.0);
}
