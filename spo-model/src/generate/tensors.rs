//! Decoding with the model's own tensors, on any device.

use super::batch::{Decoder, Sequence};
use super::sample::Plain;
use crate::CausalLm;
use crate::decoder::kv_cache::KvCache;
use crate::decoder::{PackedInputs, RopeTables};
use burn::tensor::{Int, Tensor, TensorData};
use spo_data::{Group, PackedBatch};
use spo_kernels::choose::{Draws, choose};

/// The next token of each sequence, chosen on a card; `None` where that takes more than the logits as they are.
fn chosen_there(logits: &Tensor<2>, sequences: &[Sequence]) -> Option<Vec<u32>> {
    let mut draws: Option<Draws> = None;
    for sequence in sequences {
        if let Plain::Drawn { temperature, draw } = sequence.plain()? {
            let draws = draws.get_or_insert_with(|| Draws { temperature: temperature as f32, uniform: vec![] });
            draws.uniform.push(draw as f32);
        }
    }
    choose(logits, draws.as_ref())
}

/// Sequences that start together run together: the next ones start when all have ended.
#[derive(Debug)]
pub(super) struct TensorDecoder {
    model: CausalLm,
    cache: KvCache,
    batch: usize,
}

impl TensorDecoder {
    pub fn new(model: CausalLm, batch: usize) -> Self {
        Self { model, cache: KvCache::default(), batch }
    }

    /// Logits after one more token per sequence, `[sequences, vocab]`.
    fn step(&mut self, tokens: Vec<i32>) -> Tensor<2> {
        let (model, device) = (&self.model, self.model.device());
        let positions = self.cache.next_positions();
        let rope = RopeTables::new(&model.spec().ropes, &positions, &device);
        let ints = |values: Vec<i32>| {
            let shape = [values.len()];
            Tensor::<1, Int>::from_data(TensorData::new(values, shape), &device)
        };
        let embedded = model.embed(ints(tokens), ints(positions));
        let x = model.blocks(embedded, &rope, &mut self.cache.step(model.spec(), &device));
        model.logits(model.norm.forward(x))
    }
}

impl Decoder for TensorDecoder {
    fn room(&self) -> usize {
        if self.cache.sequences() == 0 { self.batch } else { 0 }
    }

    fn start(&mut self, prompts: &[&[u32]]) {
        // Several answers to one prompt stand together: it is computed once.
        let mut distinct = prompts.to_vec();
        distinct.dedup();
        let mut last = 0;
        let which: Vec<usize> = prompts
            .iter()
            .map(|prompt| {
                last += usize::from(distinct[last] != *prompt);
                last
            })
            .collect();
        self.cache = KvCache::new(distinct.iter().map(|prompt| prompt.len()).collect());
        if prompts.iter().all(|prompt| prompt.is_empty()) {
            self.cache = KvCache::new(vec![0; prompts.len()]);
            return;
        }
        let groups: Vec<Group> = distinct.iter().map(|prompt| Group { prompt, answers: vec![] }).collect();
        let model = &self.model;
        let inputs = PackedInputs::new(&PackedBatch::new(&groups), model.spec(), &model.device());
        model.blocks(
            model.embed(inputs.ids.clone(), inputs.positions.clone()),
            &inputs.rope,
            &mut self.cache.prefill(&inputs),
        );
        if distinct.len() < prompts.len() {
            self.cache.select(&which, &model.device());
        }
    }

    fn advance(&mut self, sequences: &mut [Sequence]) {
        let newest = sequences.iter().map(|sequence| sequence.tokens()[sequence.tokens().len() - 1] as i32);
        let logits = self.step(newest.collect());
        if let Some(tokens) = chosen_there(&logits, sequences) {
            sequences.iter_mut().zip(tokens).for_each(|(sequence, token)| sequence.push_chosen(token));
            return;
        }
        let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
        let rows = logits.chunks_exact(self.model.spec().vocab_size);
        sequences.iter_mut().zip(rows).for_each(|(sequence, row)| {
            sequence.push(row);
        });
    }

    fn keep(&mut self, keep: &[bool]) {
        self.cache.keep(keep, &self.model.device());
    }
}
