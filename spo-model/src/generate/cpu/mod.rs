//! Decoding on the CPU over plain slices: the same model as the tensors', made for few rows.
//!
//! Each row is computed alone and in one order, so a token's logits have the same bits whether its
//! sequence runs alone or in a batch, token by token or many at once. That makes drafts exact: a
//! smaller copy of the weights guesses some tokens ahead, the full weights compute the logits after
//! all of them in one pass, and what they would not have chosen is thrown away.

mod attention;
mod elementwise;
mod matrix;
mod rows;
mod weights;

use super::batch::{Decoder, Sequence};
use super::{DecodeOptions, WeightFormat};
use crate::{CausalLm, ModelSpec};
use attention::{Heads, KeysValues, attend};
use elementwise::{add, gated, norm, normed};
use matrix::Storage;
use rows::Rows;
use weights::{Layer, Use, Weights};

/// Rows of a prompt that go through the model at once.
const PROMPT_ROWS: usize = 128;
/// Drafts pay while a pass over the full weights has computing power to spare.
const MOST_DRAFTING: usize = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct CpuDecoder {
    spec: ModelSpec,
    weights: Weights,
    frequencies: Vec<f32>,
    running: Vec<Cache>,
    batch: usize,
    most_drafts: usize,
    drafts: usize,
}

/// Keys and values of one sequence; `len` positions of them count.
#[derive(Debug)]
struct Cache {
    layers: Vec<KeysValues>,
    len: usize,
}

/// A token to run through the model: which sequence, which token.
type Row = (usize, u32);

impl CpuDecoder {
    /// Takes a model apart. The error says why this model cannot be decoded this way.
    pub fn new(model: CausalLm, options: &DecodeOptions) -> Result<Self, String> {
        let spec = model.spec().clone();
        check(&spec)?;
        let storage = match options.weights {
            WeightFormat::F32 => Storage::Exact,
            WeightFormat::Bf16 => Storage::Bf16,
            WeightFormat::Q8 => Storage::Q8,
        };
        let weights = Weights::new(model, storage, options.drafts > 0)?;
        let most_drafts = if storage == Storage::Q8 { 0 } else { options.drafts };
        Ok(Self {
            frequencies: spec.rope.inverse_frequencies(spec.head_dim),
            spec,
            weights,
            running: vec![],
            batch: options.batch,
            most_drafts,
            drafts: most_drafts,
        })
    }

    /// Memory of the weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Logits after each row, `[rows, vocab]`. The rows of a sequence stand together, in order.
    fn logits(&mut self, rows: &[Row], weights: Use) -> Rows {
        let x = self.forward(rows, weights);
        self.weights.head.forward(&normed(&x, &self.weights.norm, self.spec.norm_eps), weights)
    }

    /// Hidden states `[rows, hidden]`; keys and values go into the cache.
    fn forward(&mut self, rows: &[Row], weights: Use) -> Rows {
        let (spec, eps) = (&self.spec, self.spec.norm_eps);
        let mut x = self.weights.embed(rows.iter().map(|(_, token)| *token), spec);
        let positions = self.positions(rows);
        let turns: Vec<Turn> = positions.iter().map(|position| turn(*position, &self.frequencies)).collect();
        for (index, layer) in self.weights.layers.iter().enumerate() {
            let mut qkv = layer.qkv.forward(&normed(&x, &layer.attention_norm, eps), weights);
            rotate(spec, layer, &mut qkv, &turns);
            let (q_width, kv_width) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
            let mut queries = Rows::new(rows.len(), q_width);
            for (row, ((sequence, _), position)) in rows.iter().zip(&positions).enumerate() {
                let (query, rest) = qkv.row(row).split_at(q_width);
                let (keys, values) = rest.split_at(kv_width);
                queries.row_mut(row).copy_from_slice(query);
                self.running[*sequence].layers[index].set(*position, keys, values);
            }
            let caches = rows.iter().map(|(sequence, _)| &self.running[*sequence].layers[index]);
            let seen: Vec<_> = caches.zip(positions.iter().copied()).collect();
            let heads = Heads {
                heads: spec.heads,
                kv_heads: spec.kv_heads,
                dim: spec.head_dim,
                window: spec.layers[index].window,
                scale: (spec.head_dim as f32).sqrt().recip(),
            };
            add_rows(&mut x, &layer.output.forward(&attend(heads, &queries, &seen), weights));
            let gate_up = layer.gate_up.forward(&normed(&x, &layer.mlp_norm, eps), weights);
            add_rows(&mut x, &layer.down.forward(&gated(&gate_up), weights));
        }
        for (sequence, _) in rows {
            self.running[*sequence].len += 1;
        }
        x
    }

    fn positions(&self, rows: &[Row]) -> Vec<usize> {
        let mut positions: Vec<usize> = vec![];
        for (index, (sequence, _)) in rows.iter().enumerate() {
            let same = index > 0 && rows[index - 1].0 == *sequence;
            positions.push(if same { positions[index - 1] + 1 } else { self.running[*sequence].len });
        }
        positions
    }

    /// Guesses tokens with the smaller weights, then keeps those that the full weights choose too,
    /// and the next one.
    fn advance_with_drafts(&mut self, sequences: &mut [Sequence], drafts: usize) {
        let before: Vec<usize> = self.running.iter().map(|cache| cache.len).collect();
        for _ in 0..drafts {
            let rows: Vec<Row> = newest(sequences);
            let logits = self.logits(&rows, Use::Draft);
            push_all(sequences, &logits);
        }
        let mut rows = vec![];
        for (index, sequence) in sequences.iter().enumerate() {
            self.running[index].len = before[index];
            rows.extend(sequence.tokens()[before[index]..].iter().map(|token| (index, *token)));
        }
        let logits = self.logits(&rows, Use::Full);
        let mut fewest = drafts;
        for (index, sequence) in sequences.iter_mut().enumerate() {
            let guessed = sequence.take_back(drafts);
            let mut agreed = 0;
            loop {
                let chosen = sequence.push(logits.row(index * (drafts + 1) + agreed));
                if agreed == drafts || guessed[agreed] != chosen {
                    break;
                }
                agreed += 1;
            }
            self.running[index].len = before[index] + agreed + 1;
            fewest = fewest.min(agreed);
        }
        // Longer drafts while they hold, shorter ones where they do not.
        self.drafts = if fewest == drafts { (drafts + 2).min(self.most_drafts) } else { fewest.max(1) };
    }
}

impl Decoder for CpuDecoder {
    fn room(&self) -> usize {
        self.batch - self.running.len()
    }

    fn start(&mut self, prompts: &[&[u32]]) {
        for prompt in prompts {
            let layers = vec![KeysValues::default(); self.spec.layers.len()];
            self.running.push(Cache { layers, len: 0 });
            let sequence = self.running.len() - 1;
            for tokens in prompt.chunks(PROMPT_ROWS) {
                let rows: Vec<Row> = tokens.iter().map(|token| (sequence, *token)).collect();
                self.forward(&rows, Use::Full);
            }
        }
    }

    fn advance(&mut self, sequences: &mut [Sequence]) {
        let left = sequences.iter().map(Sequence::left).min().unwrap_or(1);
        let drafts = self.drafts.min(left - 1);
        if drafts > 0 && sequences.len() <= MOST_DRAFTING {
            return self.advance_with_drafts(sequences, drafts);
        }
        let logits = self.logits(&newest(sequences), Use::Full);
        push_all(sequences, &logits);
    }

    fn keep(&mut self, keep: &[bool]) {
        let mut keep = keep.iter();
        self.running.retain(|_| *keep.next().expect("one entry for each running sequence"));
    }
}

/// The quirks of a spec that are not parameters; parameters without a use are found by name.
fn check(spec: &ModelSpec) -> Result<(), String> {
    let _ = spec;
    Ok(())
}

fn newest(sequences: &[Sequence]) -> Vec<Row> {
    sequences.iter().map(|sequence| sequence.tokens()[sequence.tokens().len() - 1]).enumerate().collect()
}

fn push_all(sequences: &mut [Sequence], logits: &Rows) {
    for (index, sequence) in sequences.iter_mut().enumerate() {
        sequence.push(logits.row(index));
    }
}

fn add_rows(x: &mut Rows, y: &Rows) {
    x.rows_mut().enumerate().for_each(|(row, x)| add(x, y.row(row)));
}

/// Cosine and sine of each frequency at one position.
type Turn = Vec<(f32, f32)>;

fn turn(position: usize, frequencies: &[f32]) -> Turn {
    frequencies.iter().map(|frequency| position as f32 * frequency).map(|angle| (angle.cos(), angle.sin())).collect()
}

/// Norms and rotates the queries and keys among `[rows, q + k + v]`.
fn rotate(spec: &ModelSpec, layer: &Layer, qkv: &mut Rows, turns: &[Turn]) {
    for (row, turn) in qkv.rows_mut().zip(turns) {
        let (queries, rest) = row.split_at_mut(spec.heads * spec.head_dim);
        let keys = &mut rest[..spec.kv_heads * spec.head_dim];
        for (heads, weight) in [(queries, &layer.q_norm), (keys, &layer.k_norm)] {
            for head in heads.chunks_exact_mut(spec.head_dim) {
                if let Some(weight) = weight {
                    norm(head, weight, spec.norm_eps);
                }
                let (first, second) = head.split_at_mut(turn.len());
                for ((first, second), (cos, sin)) in first.iter_mut().zip(second).zip(turn) {
                    (*first, *second) = (*first * cos - *second * sin, *second * cos + *first * sin);
                }
            }
        }
    }
}
