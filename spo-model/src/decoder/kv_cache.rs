//! The key-value cache of batched generation.

use super::packed::{PackedAttention, masked_attention};
use super::{Attend, PackedInputs};
use crate::spec::AttentionSpec;
use burn::tensor::{Device, Tensor, TensorData};

/// Keys and values of every layer, `[sequences, kv_heads, columns, head_dim]`. Prompts are padded
/// on the right to the longest one; each generated token then adds one column for all sequences.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    prompt_lens: Vec<usize>,
    longest_prompt: usize,
    generated: usize,
}

impl KvCache {
    /// An empty cache for prompts of these lengths, in tokens.
    pub fn new(prompt_lens: Vec<usize>) -> Self {
        let longest_prompt = prompt_lens.iter().copied().max().unwrap_or(0);
        Self { layers: vec![], prompt_lens, longest_prompt, generated: 0 }
    }

    /// The attention of the prompts, which fills the cache.
    pub fn prefill(&mut self, inputs: &PackedInputs) -> Prefill<'_> {
        Prefill { attention: inputs.attention(), cache: self }
    }

    /// Position of the token that comes next in each sequence.
    pub fn next_positions(&self) -> Vec<i32> {
        self.prompt_lens.iter().map(|length| (length + self.generated) as i32).collect()
    }

    /// The attention of one more token per sequence, which is appended to the cache.
    pub fn step(&mut self, device: &Device) -> Step<'_> {
        self.generated += 1;
        Step { cache: self, device: device.clone(), bias: None }
    }

    /// Additive mask `[sequences, 1, 1, columns]` of the newest token.
    fn bias(&self, window: Option<usize>, device: &Device) -> Tensor<4> {
        let columns = self.longest_prompt + self.generated;
        let mut values = Vec::with_capacity(self.prompt_lens.len() * columns);
        for &length in &self.prompt_lens {
            let newest = length + self.generated - 1;
            values.extend((0..columns).map(|column| {
                let position = match column.checked_sub(self.longest_prompt) {
                    Some(step) => Some(length + step),
                    None => Some(column).filter(|&column| column < length),
                };
                let seen = position.is_some_and(|p| window.is_none_or(|window| newest - p < window));
                if seen { 0.0 } else { -1e30f32 }
            }));
        }
        Tensor::from_data(TensorData::new(values, [self.prompt_lens.len(), 1, 1, columns]), device)
    }
}

/// See [`KvCache::prefill`].
#[derive(Debug)]
pub struct Prefill<'a> {
    attention: PackedAttention,
    cache: &'a mut KvCache,
}

impl Attend for Prefill<'_> {
    fn attend(&mut self, layer: usize, spec: AttentionSpec, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<2> {
        self.cache.layers.push((self.attention.padded_heads(k.clone()), self.attention.padded_heads(v.clone())));
        self.attention.attend(layer, spec, q, k, v)
    }
}

/// See [`KvCache::step`].
#[derive(Debug)]
pub struct Step<'a> {
    cache: &'a mut KvCache,
    device: Device,
    /// The last mask made, so that layers of one window share it.
    bias: Option<(Option<usize>, Tensor<4>)>,
}

impl Attend for Step<'_> {
    fn attend(&mut self, layer: usize, spec: AttentionSpec, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<2> {
        if self.bias.as_ref().is_none_or(|(of, _)| *of != spec.window) {
            self.bias = Some((spec.window, self.cache.bias(spec.window, &self.device)));
        }
        let (_, bias) = self.bias.clone().expect("just made");
        let (keys, values) = &mut self.cache.layers[layer];
        *keys = Tensor::cat(vec![keys.clone(), k.unsqueeze_dim(2)], 2);
        *values = Tensor::cat(vec![values.clone(), v.unsqueeze_dim(2)], 2);
        let [sequences, heads, dim] = q.dims();
        let y = masked_attention(q.unsqueeze_dim(2), keys.clone(), values.clone(), bias, spec);
        y.reshape([sequences, heads * dim])
    }
}
