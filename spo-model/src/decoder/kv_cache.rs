//! The key-value cache of batched generation on tensors.

use super::{Attend, PackedAttention, PackedInputs};
use crate::ModelSpec;
use crate::spec::AttentionSpec;
use burn::tensor::{Device, Int, Tensor, TensorData};
use spo_kernels::attention::masked_attention;

/// Columns by which a full cache grows.
const GROWTH: usize = 64;

/// Keys and values of every layer, `[sequences, kv_heads, columns, head_dim]`. Prompts are padded
/// on the right to the longest one; each generated token then takes one column in all sequences.
/// There are more columns than are in use: the mask hides them.
#[derive(Debug, Default)]
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

    /// Sequences in the cache.
    pub fn sequences(&self) -> usize {
        self.prompt_lens.len()
    }

    /// The attention of the prompts, which fills the cache.
    pub fn prefill(&mut self, inputs: &PackedInputs) -> Prefill<'_> {
        Prefill { attention: inputs.attention(), cache: self }
    }

    /// Position of the token that comes next in each sequence.
    pub fn next_positions(&self) -> Vec<i32> {
        self.prompt_lens.iter().map(|length| (length + self.generated) as i32).collect()
    }

    /// The attention of one more token per sequence, which is added to the cache.
    pub fn step(&mut self, spec: &ModelSpec, device: &Device) -> Step<'_> {
        self.layers.resize_with(spec.layers.len(), || {
            let empty = || Tensor::zeros([self.prompt_lens.len(), spec.kv_heads, 0, spec.head_dim], device);
            (empty(), empty())
        });
        self.generated += 1;
        Step { cache: self, device: device.clone(), bias: None }
    }

    /// Only the sequences whose entry is true stay.
    pub fn keep(&mut self, keep: &[bool], device: &Device) {
        let kept: Vec<usize> = (0..).zip(keep).filter(|(_, keep)| **keep).map(|(index, _)| index).collect();
        self.select(&kept, device);
    }

    /// These sequences in this order; one may come several times.
    pub fn select(&mut self, indices: &[usize], device: &Device) {
        self.prompt_lens = indices.iter().map(|index| self.prompt_lens[*index]).collect();
        if indices.is_empty() {
            self.layers.clear();
            return;
        }
        let kept: Vec<i32> = indices.iter().map(|index| *index as i32).collect();
        let kept = Tensor::<1, Int>::from_data(TensorData::new(kept, [indices.len()]), device);
        for (keys, values) in &mut self.layers {
            *keys = keys.clone().select(0, kept.clone());
            *values = values.clone().select(0, kept.clone());
        }
    }

    /// Columns in use.
    fn filled(&self) -> usize {
        self.longest_prompt + self.generated
    }

    /// Additive mask `[sequences, 1, 1, columns]` of the newest token.
    fn bias(&self, window: Option<usize>, columns: usize, device: &Device) -> Tensor<4> {
        let mut values = Vec::with_capacity(self.prompt_lens.len() * columns);
        for &length in &self.prompt_lens {
            let newest = length + self.generated - 1;
            values.extend((0..columns).map(|column| {
                let position = match column.checked_sub(self.longest_prompt) {
                    Some(step) => Some(length + step).filter(|&position| position <= newest),
                    None => Some(column).filter(|&column| column < length),
                };
                let seen = position.is_some_and(|p| window.is_none_or(|window| newest - p < window));
                if seen { 0.0 } else { -1e30f32 }
            }));
        }
        Tensor::from_data(TensorData::new(values, [self.prompt_lens.len(), 1, 1, columns]), device)
    }
}

/// Writes `new`, `[sequences, kv_heads, 1, head_dim]`, into a column, making room first if there is
/// none.
fn write(cache: &mut Tensor<4>, column: usize, new: Tensor<4>) {
    let [sequences, heads, columns, dim] = cache.dims();
    if column >= columns {
        let shape = [sequences, heads, column + GROWTH - columns, dim];
        let room = Tensor::<4>::zeros(shape, (&new.device(), new.dtype()));
        *cache = if columns == 0 { room } else { Tensor::cat(vec![cache.clone(), room], 2) };
    }
    // The cache gives its tensor up meanwhile, so that the backend may write in place.
    let whole = std::mem::replace(cache, new.clone());
    *cache = whole.slice_assign([0..sequences, 0..heads, column..column + 1, 0..dim], new);
}

/// See [`KvCache::prefill`].
#[derive(Debug)]
pub struct Prefill<'a> {
    attention: PackedAttention,
    cache: &'a mut KvCache,
}

impl Attend for Prefill<'_> {
    fn attend(
        &mut self,
        layer: usize,
        spec: AttentionSpec,
        [q, k, v]: [Tensor<3>; 3],
        sinks: Option<Tensor<1>>,
    ) -> Tensor<2> {
        self.cache.layers.push((self.attention.padded_heads(k.clone()), self.attention.padded_heads(v.clone())));
        self.attention.attend(layer, spec, [q, k, v], sinks)
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
    fn attend(
        &mut self,
        layer: usize,
        spec: AttentionSpec,
        [q, k, v]: [Tensor<3>; 3],
        sinks: Option<Tensor<1>>,
    ) -> Tensor<2> {
        let column = self.cache.filled() - 1;
        let (keys, values) = &mut self.cache.layers[layer];
        write(keys, column, k.unsqueeze_dim(2));
        write(values, column, v.unsqueeze_dim(2));
        let (keys, values) = (keys.clone(), values.clone());
        if self.bias.as_ref().is_none_or(|(of, _)| *of != spec.window) {
            self.bias = Some((spec.window, self.cache.bias(spec.window, keys.dims()[2], &self.device)));
        }
        let (_, bias) = self.bias.clone().expect("just made");
        let [sequences, heads, dim] = q.dims();
        let y = masked_attention([q.unsqueeze_dim(2), keys, values], bias, spec, sinks);
        y.reshape([sequences, heads * dim])
    }
}
