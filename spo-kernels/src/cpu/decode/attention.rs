//! Attention of a few new tokens over a sequence's cached keys and values.

#![allow(clippy::needless_range_loop, reason = "loops over lanes become vector instructions")]

use super::rows::Rows;
use crate::attention::Heads;
use crate::cpu::vector::{exp, max, tanh};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Positions whose scores are computed side by side.
const LANES: usize = 16;

/// Multiplications below which more threads do not pay.
const WORTH_THREADS: usize = 1 << 18;

/// Keys and values of one layer and sequence.
#[derive(Debug, Clone, Default)]
pub struct KeysValues {
    /// `[positions / 16, kv_heads · dim]`, each number of 16 positions side by side.
    keys: Vec<[f32; LANES]>,
    /// `[positions, kv_heads · dim]`
    values: Vec<f32>,
}

/// A new token: its sequence's cache and its position there.
pub type Seen<'a> = (&'a KeysValues, usize);

impl KeysValues {
    /// Sets the keys and values of one position and forgets those after it.
    pub fn set(&mut self, position: usize, keys: &[f32], values: &[f32]) {
        self.values.truncate(position * values.len());
        self.values.extend_from_slice(values);
        let (block, lane) = (position / LANES * keys.len(), position % LANES);
        self.keys.resize(block + keys.len(), [0.0; LANES]);
        self.keys[block..].iter_mut().zip(keys).for_each(|(lanes, key)| lanes[lane] = *key);
    }
}

/// Queries `[rows, heads · dim]`, each over the positions up to its own → `[rows, heads · dim]`; `sinks` are those of the
/// heads, `[heads]`.
pub fn attend(heads: Heads, queries: &Rows, seen: &[Seen], sinks: Option<&[f32]>) -> Rows {
    let group = heads.heads / heads.kv_heads;
    let mut y = Rows::new(queries.len(), queries.width());
    let mut tasks: Vec<(usize, usize, &mut [f32])> = vec![];
    for (row, values) in y.rows_mut().enumerate() {
        let parts = values.chunks_mut(group * heads.dim).enumerate();
        tasks.extend(parts.map(|(kv_head, part)| (row, kv_head, part)));
    }
    let work: usize = seen.iter().map(|(_, position)| position * queries.width()).sum();
    let run = |(row, kv_head, out): (usize, usize, &mut [f32])| {
        let queries = &queries.row(row)[kv_head * group * heads.dim..][..group * heads.dim];
        let sinks = sinks.map(|sinks| &sinks[kv_head * group..]);
        Arch::new().dispatch(OfKeyHead { heads, queries, seen: seen[row], kv_head, sinks, out });
    };
    match work < WORTH_THREADS {
        true => tasks.into_iter().for_each(run),
        false => tasks.into_par_iter().for_each(run),
    }
    y
}

/// The query heads `[heads / kv_heads, dim]` of one row that share a key head.
struct OfKeyHead<'a> {
    heads: Heads,
    queries: &'a [f32],
    seen: Seen<'a>,
    kv_head: usize,
    sinks: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl WithSimd for OfKeyHead<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(mut self, _: V) {
        match V::F32_LANES {
            16.. => self.run::<true, true>(),
            4.. => self.run::<true, false>(),
            _ => self.run::<false, false>(),
        }
    }
}

impl OfKeyHead<'_> {
    /// As many heads at once as the registers hold sums of.
    #[inline(always)]
    fn run<const FUSED: bool, const WIDE: bool>(&mut self) {
        let (count, mut head) = (self.queries.len() / self.heads.dim, 0);
        while head < count {
            head += match count - head {
                4.. if WIDE => self.together::<FUSED, WIDE, 4>(head),
                3.. if WIDE => self.together::<FUSED, WIDE, 3>(head),
                2.. => self.together::<FUSED, WIDE, 2>(head),
                _ => self.together::<FUSED, WIDE, 1>(head),
            };
        }
    }

    /// `HEADS` heads from `head` on. Returns `HEADS`.
    #[inline(always)]
    fn together<const FUSED: bool, const WIDE: bool, const HEADS: usize>(&mut self, head: usize) -> usize {
        let (Heads { dim, window, .. }, position) = (self.heads, self.seen.1);
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let begin = first / LANES * LANES;
        let sinks = std::array::from_fn(|h| self.sinks.map(|sinks| sinks[head + h]));
        let mut weights = self.scores::<FUSED, HEADS>(head, begin);
        let sums = soften(&mut weights, first - begin..position + 1 - begin, sinks);
        let mut column = 0;
        while column < dim {
            column += match dim - column {
                64.. if WIDE => self.weigh::<FUSED, HEADS, 4>(head, column, begin, &weights, sums),
                32.. => self.weigh::<FUSED, HEADS, 2>(head, column, begin, &weights, sums),
                _ => self.weigh::<FUSED, HEADS, 1>(head, column, begin, &weights, sums),
            };
        }
        HEADS
    }

    /// Scores of positions from `begin` on, a multiple of 16, `[positions / 16, HEADS]`: beyond the token's own they mean
    /// nothing.
    #[inline(always)]
    fn scores<const FUSED: bool, const HEADS: usize>(&self, head: usize, begin: usize) -> Vec<[[f32; LANES]; HEADS]> {
        let (Heads { dim, kv_heads, .. }, (cache, position)) = (self.heads, self.seen);
        let queries: [&[f32]; HEADS] = std::array::from_fn(|h| &self.queries[(head + h) * dim..][..dim]);
        let mut scores = Vec::with_capacity(position / LANES + 1 - begin / LANES);
        for block in begin / LANES..=position / LANES {
            let keys = &cache.keys[(block * kv_heads + self.kv_head) * dim..][..dim];
            scores.push(self.scores_of_block::<FUSED, HEADS>(queries, keys));
        }
        scores
    }

    /// Scores of 16 positions.
    #[inline(always)]
    fn scores_of_block<const FUSED: bool, const HEADS: usize>(
        &self,
        queries: [&[f32]; HEADS],
        keys: &[[f32; LANES]],
    ) -> [[f32; LANES]; HEADS] {
        // Two sums each: one would wait for itself.
        let mut sums = [[[0.0f32; LANES]; 2]; HEADS];
        for pair in 0..keys.len() / 2 {
            for half in 0..2 {
                let keys = keys[2 * pair + half];
                for h in 0..HEADS {
                    let query = queries[h][2 * pair + half];
                    for lane in 0..LANES {
                        let sum = &mut sums[h][half][lane];
                        *sum = if FUSED { query.mul_add(keys[lane], *sum) } else { query * keys[lane] + *sum };
                    }
                }
            }
        }
        if !keys.len().is_multiple_of(2) {
            let last = keys.len() - 1;
            for h in 0..HEADS {
                for lane in 0..LANES {
                    sums[h][0][lane] += queries[h][last] * keys[last][lane];
                }
            }
        }
        let Heads { scale, softcap, .. } = self.heads;
        let mut scores = [[0.0; LANES]; HEADS];
        for h in 0..HEADS {
            for lane in 0..LANES {
                scores[h][lane] = scale * (sums[h][0][lane] + sums[h][1][lane]);
            }
            if let Some(cap) = softcap {
                for lane in 0..LANES {
                    scores[h][lane] = cap * tanh(scores[h][lane] / cap);
                }
            }
        }
        scores
    }

    /// `COLUMNS` times 16 channels of the values, or those that are left, weighed. Returns how many.
    #[inline(always)]
    fn weigh<const FUSED: bool, const HEADS: usize, const COLUMNS: usize>(
        &mut self,
        head: usize,
        column: usize,
        begin: usize,
        weights: &[[[f32; LANES]; HEADS]],
        sums: [f32; HEADS],
    ) -> usize {
        let (Heads { dim, kv_heads, .. }, (cache, position)) = (self.heads, self.seen);
        let width = (COLUMNS * LANES).min(dim - column);
        let mut totals = [[[0.0f32; LANES]; COLUMNS]; HEADS];
        for position in begin..=position {
            let values = &cache.values[(position * kv_heads + self.kv_head) * dim + column..][..width];
            let mut lanes = [[0.0f32; LANES]; COLUMNS];
            for c in 0..COLUMNS {
                let part = (width - c * LANES).min(LANES);
                match values[c * LANES..].as_chunks::<LANES>().0 {
                    [whole, ..] => lanes[c] = *whole,
                    [] => lanes[c][..part].copy_from_slice(&values[c * LANES..]),
                }
            }
            let (block, of_block) = ((position - begin) / LANES, (position - begin) % LANES);
            for h in 0..HEADS {
                let weight = weights[block][h][of_block];
                for c in 0..COLUMNS {
                    for lane in 0..LANES {
                        let total = &mut totals[h][c][lane];
                        *total = if FUSED {
                            weight.mul_add(lanes[c][lane], *total)
                        } else {
                            weight * lanes[c][lane] + *total
                        };
                    }
                }
            }
        }
        for h in 0..HEADS {
            let out = &mut self.out[(head + h) * dim + column..][..width];
            for c in 0..COLUMNS {
                for lane in 0..LANES {
                    totals[h][c][lane] /= sums[h];
                }
                let part = (width - c * LANES).min(LANES);
                out[c * LANES..][..part].copy_from_slice(&totals[h][c][..part]);
            }
        }
        width
    }
}

/// Scores become weights that are not normalised, 0 where nothing is `seen`; returns their sums.
#[inline(always)]
fn soften<const HEADS: usize>(
    scores: &mut [[[f32; LANES]; HEADS]],
    seen: Range<usize>,
    sinks: [Option<f32>; HEADS],
) -> [f32; HEADS] {
    for at in (0..seen.start).chain(seen.end..scores.len() * LANES) {
        for h in 0..HEADS {
            scores[at / LANES][h][at % LANES] = f32::NEG_INFINITY;
        }
    }
    let mut sums = [0.0; HEADS];
    for h in 0..HEADS {
        let mut tops = [sinks[h].unwrap_or(f32::NEG_INFINITY); LANES];
        for block in scores.iter() {
            for lane in 0..LANES {
                tops[lane] = if block[h][lane] > tops[lane] { block[h][lane] } else { tops[lane] };
            }
        }
        let top = max(&tops);
        let mut of_lanes = [0.0f32; LANES];
        for block in scores.iter_mut() {
            for lane in 0..LANES {
                block[h][lane] = exp(block[h][lane] - top);
                of_lanes[lane] += block[h][lane];
            }
        }
        sums[h] = of_lanes.iter().sum::<f32>() + sinks[h].map_or(0.0, |sink| exp(sink - top));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{AttentionSpec, Group, PackedAttention};
    use crate::check::{random, wide};
    use burn::tensor::{DType, Tensor};

    #[test]
    fn a_token_sees_what_it_sees_in_a_packed_batch() {
        for (heads, kv_heads, dim) in [(6, 2, 8), (4, 4, 64), (7, 1, 80), (10, 2, 33)] {
            tokens_see_what_they_should(heads, kv_heads, dim);
        }
    }

    fn tokens_see_what_they_should(heads: usize, kv_heads: usize, dim: usize) {
        let tokens = 40;
        let [q, k, v] = [heads, kv_heads, kv_heads].map(|heads| random([tokens, heads, dim]));
        let numbers = |x: &Tensor<3>| x.clone().into_data().iter::<f32>().collect::<Vec<f32>>();
        let (q_values, keys, values) = (numbers(&q), numbers(&k), numbers(&v));
        let mut cache = KeysValues::default();
        let width = kv_heads * dim;
        let positions = keys.chunks(width).zip(values.chunks(width)).enumerate();
        positions.for_each(|(position, (keys, values))| cache.set(position, keys, values));
        // What is forgotten leaves no trace.
        cache.set(tokens - 4, &vec![9.0; width], &vec![9.0; width]);
        for (position, (keys, values)) in keys.chunks(width).zip(values.chunks(width)).enumerate().skip(tokens - 4) {
            cache.set(position, keys, values);
        }
        let plain = AttentionSpec::plain(dim);
        for spec in [plain, AttentionSpec { window: Some(5), ..plain }, AttentionSpec { softcap: Some(2.5), ..plain }] {
            let group = Group { start: 0, prompt_len: tokens, answer_lens: vec![] };
            let packed = PackedAttention::new(vec![group], &q.device());
            let [q, k, v] = [&q, &k, &v].map(|x| x.clone().cast(DType::F64));
            let expected = wide(&packed.reference(spec, q, k, v));
            let width = heads * dim;
            let mut queries = Rows::new(tokens, width);
            queries.rows_mut().zip(q_values.chunks(width)).for_each(|(row, from)| row.copy_from_slice(from));
            let seen: Vec<Seen> = (0..tokens).map(|position| (&cache, position)).collect();
            let found = attend(Heads::new([heads, kv_heads, dim], spec), &queries, &seen, None);
            for (row, expected) in expected.chunks(width).enumerate() {
                let near = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() < 1e-5;
                assert!(found.row(row).iter().zip(expected).all(near), "row {row}, {heads}, {kv_heads}, {spec:?}");
            }
        }
    }
}
