//! Attention of a few new tokens over a sequence's cached keys and values.

use super::rows::Rows;
use rayon::prelude::*;
use spo_core::cpu::vector::{dot, exp, tanh};

/// Multiplications below which more threads do not pay.
const WORTH_THREADS: usize = 1 << 18;

/// Sizes of one attention call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Channels per head.
    pub dim: usize,
    /// How far back a token sees.
    pub window: Option<usize>,
    /// Factor on the scores.
    pub scale: f32,
    /// Bound of the scores.
    pub softcap: Option<f32>,
}

/// Keys and values of one layer and sequence, each `[positions, kv_heads · dim]`.
#[derive(Debug, Clone, Default)]
pub(super) struct KeysValues {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

/// A new token: its sequence's cache and its position there.
pub(super) type Seen<'a> = (&'a KeysValues, usize);

impl KeysValues {
    /// Sets the keys and values of one position and forgets those after it.
    pub fn set(&mut self, position: usize, keys: &[f32], values: &[f32]) {
        for (cache, new) in [(&mut self.keys, keys), (&mut self.values, values)] {
            cache.truncate(position * new.len());
            cache.extend_from_slice(new);
        }
    }
}

/// Queries `[rows, heads · dim]`, each over the positions up to its own → `[rows, heads · dim]`.
pub(super) fn attend(heads: Heads, queries: &Rows, seen: &[Seen]) -> Rows {
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
        pulp::Arch::new().dispatch(|| one(heads, query, seen[row], kv_head, out));
    };
    match work < WORTH_THREADS {
        true => tasks.into_iter().for_each(run),
        false => tasks.into_par_iter().for_each(run),
    }
    y
}

/// The query heads `[heads / kv_heads, dim]` of one row that share a key head.
#[inline(always)]
fn one(heads: Heads, queries: &[f32], (cache, position): Seen, kv_head: usize, out: &mut [f32]) {
    let (dim, stride) = (heads.dim, heads.kv_heads * heads.dim);
    let first = heads.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let at = |position: usize| position * stride + kv_head * dim..position * stride + (kv_head + 1) * dim;
    let mut weights = vec![0.0f32; position + 1 - first];
    for (query, out) in queries.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
        let mut top = f32::NEG_INFINITY;
        for (weight, position) in weights.iter_mut().zip(first..) {
            *weight = heads.scale * dot(query, &cache.keys[at(position)]);
            if let Some(cap) = heads.softcap {
                *weight = cap * tanh(*weight / cap);
            }
            top = top.max(*weight);
        }
        let mut sum = 0.0;
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
