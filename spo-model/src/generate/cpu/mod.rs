//! Decoding on the CPU over plain slices: the same model as the tensors', made for few rows.
//!
//! Each row is computed alone and in one order, so a token's logits have the same bits whether its
//! sequence runs alone or in a batch, token by token or many at once. That makes drafts exact: a
//! smaller copy of the weights guesses some tokens ahead, the full weights compute the logits after
//! all of them in one pass, and what they would not have chosen is thrown away.

mod feed_forward;
mod weights;

use super::batch::{Decoder, Sequence};
use super::{DecodeOptions, WeightFormat};
use crate::spec::{Activation, MlpKind, NormKind, QkNorm, QkvLayout, Rope};
use crate::{CausalLm, ModelSpec};
use burn::tensor::Device;
use spo_kernels::attention::Heads;
use spo_kernels::cpu::decode::elementwise::{add, norm, normalise, normed, soft_cap};
use spo_kernels::cpu::decode::{KeysValues, Rows, attend};
use spo_kernels::cpu::on_a_worker;
use weights::{Layer, Use, Weights};

/// Rows of a prompt that go through the model at once.
const PROMPT_ROWS: usize = 128;
/// Passes over the weights that pay for copies of them that are read faster.
const WORTH_COPIES: usize = 8;
/// Drafts pay while a pass over the full weights has computing power to spare.
const MOST_DRAFTING: usize = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct CpuDecoder {
    spec: ModelSpec,
    weights: Weights,
    running: Vec<Cache>,
    /// The sequence that ended last: a prompt that begins as it does goes on from there.
    ended: Option<Cache>,
    batch: usize,
    most_drafts: usize,
    /// Drafts of the next pass; 0 until there are weights for them.
    drafts: usize,
    /// Passes over the weights that were expected so far, at most.
    passes: usize,
    copies: Copies,
}

/// Copies of the weights that are read faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copies {
    /// There are none, or they are made.
    Settled,
    /// They pay, but the next token does not wait for them.
    AfterAToken,
    /// To be made before the next pass.
    Due,
}

/// Keys and values of a sequence's tokens; what follows them does not count.
#[derive(Debug)]
struct Cache {
    layers: Vec<KeysValues>,
    tokens: Vec<u32>,
}

/// A token to run through the model: which sequence, which token.
type Row = (usize, u32);

impl CpuDecoder {
    /// Takes a model apart. The error says why this model cannot be decoded this way.
    pub fn new(model: CausalLm, options: &DecodeOptions) -> Result<Self, String> {
        let spec = model.spec().clone();
        check(&spec)?;
        let weights = Weights::new(model, options.weights)?;
        let most_drafts = if options.weights == WeightFormat::Q8 { 0 } else { options.drafts };
        Ok(Self {
            spec,
            weights,
            running: vec![],
            ended: None,
            batch: options.batch,
            most_drafts,
            drafts: 0,
            passes: 0,
            copies: Copies::Settled,
        })
    }

    /// Memory of the weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Logits after each row, `[rows, vocab]`. The rows of a sequence stand together, in order.
    fn logits(&mut self, rows: &[Row], weights: Use) -> Rows {
        let mut x = self.forward(rows, weights);
        normalise(&mut x, Some(&self.weights.norm), self.spec.norm_eps);
        let mut logits = self.weights.head.forward(&x, weights);
        if let Some(cap) = self.spec.logit_softcap {
            logits.rows_mut().for_each(|row| soft_cap(row, cap as f32));
        }
        logits
    }

    /// Hidden states `[rows, hidden]`; keys and values go into the cache.
    fn forward(&mut self, rows: &[Row], weights: Use) -> Rows {
        let (spec, eps) = (&self.spec, self.spec.norm_eps);
        let residual_scale = spec.residual_scale as f32;
        let mut x = self.weights.embed(rows.iter().map(|(_, token)| *token), spec);
        let positions = self.positions(rows);
        let turns: Vec<Turns> = spec.ropes.iter().map(|rope| Turns::new(rope, &positions)).collect();
        for (index, (layer, of_layer)) in self.weights.layers.iter().zip(&spec.layers).enumerate() {
            let mut qkv = layer.qkv.forward(&normed(&x, layer.attention_norm.as_deref(), eps), weights);
            prepare_heads(spec, layer, &mut qkv, of_layer.rope.map(|rope| &turns[rope]));
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
            let heads = Heads::new([spec.heads, spec.kv_heads, spec.head_dim], of_layer.attention);
            let mut attended = layer.output.forward(&attend(heads, &queries, &seen, layer.sinks.as_deref()), weights);
            normalise(&mut attended, layer.attended_norm.as_deref(), eps);
            add_rows(&mut x, &attended, residual_scale);
            let mut fed = layer.feed_forward.forward(&normed(&x, layer.mlp_norm.as_deref(), eps), spec, weights);
            normalise(&mut fed, layer.fed_norm.as_deref(), eps);
            add_rows(&mut x, &fed, residual_scale);
            if let Some([gain, shift]) = &layer.film {
                x.rows_mut().for_each(|row| scale_and_shift(row, gain, shift));
            }
        }
        for (sequence, token) in rows {
            self.running[*sequence].tokens.push(*token);
        }
        x
    }

    /// What is known of a prompt already: its beginning that the sequence that ended last shares, or the one that started
    /// last, as where several answers to one prompt are drawn.
    fn cache_for(&mut self, prompt: &[u32]) -> Cache {
        let same = |cache: &Cache| cache.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let of_ended = self.ended.as_ref().map_or(0, same);
        let neighbour = self.running.last().map(|cache| (same(cache), cache)).filter(|(same, _)| *same > of_ended);
        if let Some((same, cache)) = neighbour {
            return Cache { layers: cache.layers.clone(), tokens: cache.tokens[..same].to_vec() };
        }
        let empty = || Cache { layers: vec![KeysValues::default(); self.spec.layers.len()], tokens: vec![] };
        let mut cache = self.ended.take().unwrap_or_else(empty);
        cache.tokens.truncate(of_ended);
        cache
    }

    /// Makes the copies that are due.
    fn settle(&mut self) {
        self.copies = match self.copies {
            Copies::AfterAToken => Copies::Due,
            Copies::Due => {
                self.weights.copy(self.most_drafts > 0);
                self.drafts = self.most_drafts;
                Copies::Settled
            }
            Copies::Settled => Copies::Settled,
        };
    }

    /// Runs prompts through the model, each but for what is known of it.
    fn read(&mut self, prompts: &[&[u32]]) {
        for prompt in prompts {
            let cache = self.cache_for(prompt);
            let known = cache.tokens.len();
            self.running.push(cache);
            let sequence = self.running.len() - 1;
            for tokens in prompt[known..].chunks(PROMPT_ROWS) {
                let rows: Vec<Row> = tokens.iter().map(|token| (sequence, *token)).collect();
                self.forward(&rows, Use::Full);
            }
        }
    }

    fn positions(&self, rows: &[Row]) -> Vec<usize> {
        let mut positions: Vec<usize> = vec![];
        for (index, (sequence, _)) in rows.iter().enumerate() {
            let same = index > 0 && rows[index - 1].0 == *sequence;
            positions.push(if same { positions[index - 1] + 1 } else { self.running[*sequence].tokens.len() });
        }
        positions
    }

    /// Guesses tokens with the smaller weights, then keeps those that the full weights choose too,
    /// and the next one.
    fn advance_with_drafts(&mut self, sequences: &mut [Sequence], drafts: usize) {
        let before: Vec<usize> = self.running.iter().map(|cache| cache.tokens.len()).collect();
        for _ in 0..drafts {
            let rows: Vec<Row> = newest(sequences);
            let logits = self.logits(&rows, Use::Draft);
            push_all(sequences, &logits);
        }
        let mut rows = vec![];
        for (index, sequence) in sequences.iter().enumerate() {
            self.running[index].tokens.truncate(before[index]);
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
            self.running[index].tokens.truncate(before[index] + agreed + 1);
            fewest = fewest.min(agreed);
        }
        // Longer drafts while they hold, shorter ones where they do not.
        self.drafts = if fewest == drafts { (drafts + 2).min(self.most_drafts) } else { fewest.max(1) };
    }
}

impl Decoder for CpuDecoder {
    fn expect(&mut self, prompts: usize, max_new_tokens: usize) {
        let before = self.passes;
        self.passes = before.saturating_add(prompts.div_ceil(self.batch).saturating_mul(max_new_tokens));
        if before < WORTH_COPIES && self.passes >= WORTH_COPIES {
            self.copies = Copies::AfterAToken;
        }
    }

    fn room(&self) -> usize {
        self.batch - self.running.len()
    }

    fn start(&mut self, prompts: &[&[u32]]) {
        on_a_worker(&Device::flex(), || self.read(prompts));
    }

    fn advance(&mut self, sequences: &mut [Sequence]) {
        on_a_worker(&Device::flex(), || {
            self.settle();
            let left = sequences.iter().map(Sequence::left).min().unwrap_or(1);
            let drafts = self.drafts.min(left - 1);
            if drafts > 0 && sequences.len() <= MOST_DRAFTING {
                return self.advance_with_drafts(sequences, drafts);
            }
            let logits = self.logits(&newest(sequences), Use::Full);
            push_all(sequences, &logits);
        });
    }

    fn keep(&mut self, keep: &[bool]) {
        let (kept, ended): (Vec<_>, Vec<_>) = self.running.drain(..).zip(keep).partition(|(_, keep)| **keep);
        self.running = kept.into_iter().map(|(cache, _)| cache).collect();
        self.ended = ended.into_iter().next_back().map(|(cache, _)| cache);
    }

    fn forget(&mut self) {
        self.ended = None;
    }
}

/// The quirks of a spec that are not parameters; parameters without a use are found by name. All
/// fields are named, so that a new quirk cannot be missed.
fn check(spec: &ModelSpec) -> Result<(), String> {
    let ModelSpec {
        norm,
        parallel,
        qkv,
        mlp,
        activation,
        learned_positions,
        experts,
        layer_inputs,
        qk_norm,
        // Known to the kernels, or the same for all.
        family: _,
        vocab_size: _,
        hidden_size: _,
        intermediate_size: _,
        heads: _,
        kv_heads: _,
        head_dim: _,
        context: _,
        norm_eps: _,
        norm_placement: _,
        tied: _,
        qkv_bias: _,
        output_bias: _,
        mlp_bias: _,
        embedding_scale: _,
        logit_softcap: _,
        logit_scale: _,
        residual_scale: _,
        sinks: _,
        layer_scalars: _,
        ropes: _,
        layers: _,
        layout: _,
        eos: _,
    } = spec;
    let gate = experts.as_ref().map_or(*mlp, |experts| experts.mlp);
    let clamped = matches!(activation, Activation::Clamped { .. });
    let lacking = [
        ((gate == MlpKind::GatedInterleaved) != clamped, "such a gate"),
        (matches!(norm, NormKind::Layer | NormKind::LayerUnbiased), "layer norms"),
        (*parallel, "parallel attention and feed-forward blocks"),
        (*qkv == QkvLayout::PerHead, "projections stored head by head"),
        (*mlp == MlpKind::Plain, "feed-forward blocks without a gate"),
        (*activation == Activation::Gelu, "exact GELU"),
        (*learned_positions, "learned positions"),
        (*qk_norm == QkNorm::PerHeadAndValues, "norms of values"),
        (layer_inputs.is_some(), "inputs of each block's own"),
    ];
    match lacking.iter().find(|(lacks, _)| *lacks) {
        Some((_, what)) => Err(what.to_string()),
        None => Ok(()),
    }
}

fn newest(sequences: &[Sequence]) -> Vec<Row> {
    sequences.iter().map(|sequence| sequence.tokens()[sequence.tokens().len() - 1]).enumerate().collect()
}

fn push_all(sequences: &mut [Sequence], logits: &Rows) {
    for (index, sequence) in sequences.iter_mut().enumerate() {
        sequence.push(logits.row(index));
    }
}

fn scale_and_shift(row: &mut [f32], gain: &[f32], shift: &[f32]) {
    row.iter_mut().zip(gain.iter().zip(shift)).for_each(|(x, (gain, shift))| *x = *x * gain + shift);
}

/// `x += factor · y`
fn add_rows(x: &mut Rows, y: &Rows, factor: f32) {
    for (row, x) in x.rows_mut().enumerate() {
        match factor {
            1.0 => add(x, y.row(row)),
            _ => x.iter_mut().zip(y.row(row)).for_each(|(x, y)| *x += factor * y),
        }
    }
}

/// How queries and keys at some positions turn.
struct Turns {
    /// Cosine and sine of each frequency, position by position.
    angles: Vec<Vec<(f32, f32)>>,
    /// Neighbouring channels turn together.
    pairs: bool,
    /// Factors on the queries.
    growth: Option<Vec<f32>>,
}

impl Turns {
    fn new(rope: &Rope, positions: &[usize]) -> Self {
        let (frequencies, factor) = (rope.inverse_frequencies(), rope.attention_factor() as f32);
        let of_position = |position: &usize| {
            let angles = frequencies.iter().map(|frequency| *position as f32 * frequency);
            angles.map(|angle| (factor * angle.cos(), factor * angle.sin())).collect()
        };
        let growth = rope.growth.map(|growth| positions.iter().map(|position| growth.at(*position)).collect());
        Self { angles: positions.iter().map(of_position).collect(), pairs: rope.pairs, growth }
    }

    /// Turns the first channels of a head.
    fn rotate(&self, row: usize, head: &mut [f32]) {
        let turn = |first: &mut f32, second: &mut f32, (cos, sin): &(f32, f32)| {
            (*first, *second) = (*first * cos - *second * sin, *second * cos + *first * sin);
        };
        let angles = &self.angles[row];
        if self.pairs {
            let pairs = head.as_chunks_mut::<2>().0.iter_mut().zip(angles);
            pairs.for_each(|([first, second], angle)| turn(first, second, angle));
        } else {
            let (first, second) = head[..2 * angles.len()].split_at_mut(angles.len());
            first.iter_mut().zip(second).zip(angles).for_each(|((first, second), angle)| turn(first, second, angle));
        }
    }
}

/// Norms and rotates the queries and keys among `[rows, q + k + v]`.
fn prepare_heads(spec: &ModelSpec, layer: &Layer, qkv: &mut Rows, turns: Option<&Turns>) {
    let rotated_first = spec.qk_norm == QkNorm::PerHeadRotated;
    for (index, row) in qkv.rows_mut().enumerate() {
        let (queries, rest) = row.split_at_mut(spec.heads * spec.head_dim);
        let keys = &mut rest[..spec.kv_heads * spec.head_dim];
        for (heads, weight) in [(&mut *queries, &layer.q_norm), (keys, &layer.k_norm)] {
            let normalise = |heads: &mut [f32]| {
                if let Some(weight) = weight {
                    // Of one head, or of all heads together.
                    heads.chunks_exact_mut(weight.len()).for_each(|part| norm(part, weight, spec.norm_eps));
                }
            };
            if !rotated_first {
                normalise(heads);
            }
            if let Some(turns) = turns {
                heads.chunks_exact_mut(spec.head_dim).for_each(|head| turns.rotate(index, head));
            }
            if rotated_first {
                normalise(heads);
            }
        }
        if let Some(growth) = turns.and_then(|turns| turns.growth.as_ref()) {
            queries.iter_mut().for_each(|query| *query *= growth[index]);
        }
    }
}
