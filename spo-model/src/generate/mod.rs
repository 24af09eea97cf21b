//! Batched generation with a key-value cache.

mod sample;

pub use sample::Sampling;

use crate::CausalLm;
use crate::decoder::kv_cache::KvCache;
use crate::decoder::{PackedInputs, RopeTables};
use burn::tensor::{Int, Tensor, TensorData};
use sample::Sampler;
use spo_data::{Group, PackedBatch};

/// When to stop and how to choose.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Seed of the draws; sequence `i` of a call draws from its own stream, whatever its batch.
    pub seed: u64,
    /// Tokens that end a sequence; they are part of it. Empty: only the length ends it.
    pub stop: Vec<u32>,
}

impl CausalLm {
    /// Continues each prompt; the new tokens only, the stop token included. `progress` is called
    /// with the number of tokens each sequence has so far.
    ///
    /// Prompts must not be empty and, with the new tokens, fit the context: generation stops at
    /// the end of the context.
    pub fn generate(
        &self,
        prompts: &[&[u32]],
        options: &GenerateOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Vec<Vec<u32>> {
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let steps = options.max_new_tokens.min(self.spec().context.saturating_sub(longest));
        if prompts.is_empty() || steps == 0 {
            return vec![vec![]; prompts.len()];
        }
        let mut cache = KvCache::new(prompts.iter().map(|prompt| prompt.len()).collect());
        let mut samplers: Vec<Sampler> =
            (0..prompts.len()).map(|index| Sampler::new(options.sampling, options.seed, index as u64)).collect();
        let mut generated = vec![vec![]; prompts.len()];
        let mut logits = self.prefill(prompts, &mut cache);
        for step in 1..=steps {
            for (index, row) in logits.chunks_exact(self.spec().vocab_size).enumerate() {
                if !ended(&generated[index], &options.stop) {
                    generated[index].push(samplers[index].choose(row));
                }
            }
            progress(step);
            if step == steps || generated.iter().all(|tokens| ended(tokens, &options.stop)) {
                break;
            }
            let newest: Vec<i32> = generated.iter().map(|tokens| tokens[tokens.len() - 1] as i32).collect();
            logits = self.step(newest, &mut cache);
        }
        generated
    }

    /// Logits after each prompt, `[prompts · vocab]`.
    fn prefill(&self, prompts: &[&[u32]], cache: &mut KvCache) -> Vec<f32> {
        let groups: Vec<Group> = prompts.iter().map(|prompt| Group { prompt, answers: vec![] }).collect();
        let batch = PackedBatch::new(&groups);
        let device = self.device();
        let inputs = PackedInputs::new(&batch, self.spec(), self.dtype(), &device);
        let x = self.embed(inputs.ids.clone(), inputs.positions.clone());
        let x = self.blocks(x, &inputs.rope, &mut cache.prefill(&inputs));
        let last: Vec<i32> = batch.groups.iter().map(|group| (group.start + group.prompt_len - 1) as i32).collect();
        let count = last.len();
        self.next_logits(x.select(0, Tensor::<1, Int>::from_data(TensorData::new(last, [count]), &device)))
    }

    /// Logits after one more token per sequence, `[sequences · vocab]`.
    fn step(&self, tokens: Vec<i32>, cache: &mut KvCache) -> Vec<f32> {
        let device = self.device();
        let positions = cache.next_positions();
        let rope = RopeTables::new(&self.spec().ropes, &positions, self.dtype(), &device);
        let ints = |values: Vec<i32>| {
            let shape = [values.len()];
            Tensor::<1, Int>::from_data(TensorData::new(values, shape), &device)
        };
        let x = self.embed(ints(tokens), ints(positions));
        self.next_logits(self.blocks(x, &rope, &mut cache.step(&device)))
    }

    fn next_logits(&self, x: Tensor<2>) -> Vec<f32> {
        self.logits(self.norm.forward(x)).into_data().iter::<f32>().collect()
    }
}

fn ended(tokens: &[u32], stop: &[u32]) -> bool {
    tokens.last().is_some_and(|token| stop.contains(token))
}
