//! Attention of a few new tokens over a sequence's cached keys and values.

use super::rows::Rows;
use crate::attention::Heads;
use crate::cpu::vector::{dot, exp, tanh, widest};
use rayon::prelude::*;

/// Multiplications below which more threads do not pay.
const WORTH_THREADS: usize = 1 << 18;

/// Keys and values of one layer and sequence, each `[positions, kv_heads · dim]`.
#[derive(Debug, Clone, Default)]
pub struct KeysValues {
    /// One row a position.
    pub keys: Vec<f32>,
    /// One row a position.
    pub values: Vec<f32>,
}

/// A new token: its sequence's cache and its position there.
pub type Seen<'a> = (&'a KeysValues, usize);

impl KeysValues {
    /// Sets the keys and values of one position and forgets those after it.
    pub fn set(&mut self, position: usize, keys: &[f32], values: &[f32]) {
        for (cache, new) in [(&mut self.keys, keys), (&mut self.values, values)] {
            cache.truncate(position * new.len());
            cache.extend_from_slice(new);
        }
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
        let query = &queries.row(row)[kv_head * group * heads.dim..][..group * heads.dim];
        let sinks = sinks.map(|sinks| &sinks[kv_head * group..]);
        widest!(one(heads, query, seen[row], (kv_head, sinks), out));
    };
    match work < WORTH_THREADS {
        true => tasks.into_iter().for_each(run),
        false => tasks.into_par_iter().for_each(run),
    }
    y
}

/// A key head, and the sinks of its query heads.
type OfHead<'a> = (usize, Option<&'a [f32]>);

/// The query heads `[heads / kv_heads, dim]` of one row that share a key head.
#[inline(always)]
fn one(heads: Heads, queries: &[f32], (cache, position): Seen, (kv_head, sinks): OfHead, out: &mut [f32]) {
    let (dim, stride) = (heads.dim, heads.kv_heads * heads.dim);
    let first = heads.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let at = |position: usize| position * stride + kv_head * dim..position * stride + (kv_head + 1) * dim;
    let mut weights = vec![0.0f32; position + 1 - first];
    for (head, (query, out)) in queries.chunks_exact(dim).zip(out.chunks_exact_mut(dim)).enumerate() {
        let sink = sinks.map(|sinks| sinks[head]);
        let mut top = sink.unwrap_or(f32::NEG_INFINITY);
        for (weight, position) in weights.iter_mut().zip(first..) {
            *weight = heads.scale * dot(query, &cache.keys[at(position)]);
            if let Some(cap) = heads.softcap {
                *weight = cap * tanh(*weight / cap);
            }
            top = top.max(*weight);
        }
        let mut sum = sink.map_or(0.0, |sink| exp(sink - top));
        for weight in &mut weights {
            *weight = exp(*weight - top);
            sum += *weight;
        }
        for (weight, position) in weights.iter().zip(first..) {
            let factor = weight / sum;
            let values = &cache.values[at(position)];
            out.iter_mut().zip(values).for_each(|(out, value)| *out += factor * value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{AttentionSpec, Group, PackedAttention};
    use crate::check::{random, wide};
    use burn::tensor::{DType, Tensor};

    #[test]
    fn the_last_token_sees_what_it_sees_in_a_packed_batch() {
        let (heads, kv_heads, dim, tokens) = (6, 2, 8, 40);
        let [q, k, v] = [heads, kv_heads, kv_heads].map(|heads| random([tokens, heads, dim]));
        let numbers = |x: &Tensor<3>| x.clone().into_data().iter::<f32>().collect::<Vec<f32>>();
        let (q_values, cache) = (numbers(&q), KeysValues { keys: numbers(&k), values: numbers(&v) });
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
                assert!(found.row(row).iter().zip(expected).all(near), "row {row}, {spec:?}");
            }
        }
    }
}
