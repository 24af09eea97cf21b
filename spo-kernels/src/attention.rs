//! Packed, prefix-shared batches on a device. Token-wise layers see `[tokens, hidden]` without
//! padding; groups are padded to the longest one inside the attention call only.

use super::cpu_attention::{self, Heads};
use super::{Attend, RopeTables};
use crate::ModelSpec;
use crate::device::on_cpu;
use crate::spec::AttentionSpec;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation::softmax};
use spo_core::cpu::Values;
use spo_data::{GroupSpan, PackedBatch};
use std::sync::Arc;

/// Score of a pair of tokens that must not see each other; finite, so that a row of padding,
/// which sees nothing, gives no NaN.
const MASKED: f32 = -1e30;

/// The tensors of one [`PackedBatch`].
#[derive(Debug, Clone)]
pub struct PackedInputs {
    /// Token ids, `[tokens]`.
    pub ids: Tensor<1, Int>,
    /// Position of each token in its sequence, `[tokens]`.
    pub positions: Tensor<1, Int>,
    /// Rotary tables of the positions.
    pub rope: RopeTables,
    /// Tokens whose hidden state predicts an answer token, `[rows]`.
    pub score_rows: Tensor<1, Int>,
    /// The tokens they predict, `[rows]`.
    pub targets: Tensor<1, Int>,
    attention: PackedAttention,
}

impl PackedInputs {
    /// Uploads a batch for a model of this spec that computes in `dtype`.
    pub fn new(batch: &PackedBatch, spec: &ModelSpec, dtype: DType, device: &Device) -> Self {
        let ints =
            |values: &[i32]| Tensor::<1, Int>::from_data(TensorData::new(values.to_vec(), [values.len()]), device);
        Self {
            ids: ints(&batch.input_ids),
            positions: ints(&batch.positions),
            rope: RopeTables::new(&spec.ropes, &batch.positions, dtype, device),
            score_rows: ints(&batch.score_rows),
            targets: ints(&batch.targets),
            attention: PackedAttention::new(batch, spec, device),
        }
    }

    /// The attention of this batch.
    pub fn attention(&self) -> PackedAttention {
        self.attention.clone()
    }
}

/// Prompt tokens see the prompt; the tokens of an answer see the prompt and their own answer.
#[derive(Debug, Clone)]
pub struct PackedAttention {
    groups: usize,
    longest: usize,
    /// `[groups · longest]`: which token stands in each padded slot, and `[tokens]`: in which slot
    /// each token stands. `None` when the two orders are the same.
    order: Option<(Tensor<1, Int>, Tensor<1, Int>)>,
    /// 1 where a slot holds a token and 0 in the padding, `[groups, 1, longest, 1]`.
    filled: Tensor<4>,
    /// Additive mask `[groups, 1, longest, longest]` for each window in use.
    biases: Vec<(Option<usize>, Tensor<4>)>,
    /// The groups, where the CPU's own operation runs.
    cpu: Option<Arc<[GroupSpan]>>,
}

impl PackedAttention {
    fn new(batch: &PackedBatch, spec: &ModelSpec, device: &Device) -> Self {
        let (groups, longest) = (batch.groups.len(), batch.longest_group());
        let ints = |values: Vec<i32>| {
            let shape = [values.len()];
            Tensor::<1, Int>::from_data(TensorData::new(values, shape), device)
        };
        let order = (groups * longest != batch.tokens()).then(|| {
            let (gather, scatter) = padded_order(&batch.groups, longest);
            (ints(gather), ints(scatter))
        });
        let mut windows: Vec<_> = spec.layers.iter().map(|layer| layer.attention.window).collect();
        windows.sort_unstable();
        windows.dedup();
        let biases = windows.into_iter().map(|window| {
            let values = mask(batch, longest, window);
            let data = TensorData::new(values, [groups, 1, longest, longest]);
            (window, Tensor::from_data(data, device))
        });
        let filled = batch
            .groups
            .iter()
            .flat_map(|group| (0..longest).map(|slot| if slot < group.tokens() { 1.0 } else { 0.0 }));
        let filled = TensorData::new(filled.collect::<Vec<f32>>(), [groups, 1, longest, 1]);
        let filled = Tensor::from_data(filled, device);
        let cpu = on_cpu(device).then(|| Arc::from(batch.groups.clone()));
        Self { groups, longest, order, filled, biases: biases.collect(), cpu }
    }

    /// `[tokens, heads, head_dim]` → `[groups, longest, heads, head_dim]`
    fn pad(&self, x: Tensor<3>) -> Tensor<4> {
        let [tokens, heads, dim] = x.dims();
        let x = match &self.order {
            Some((gather, _)) => x.reshape([tokens, heads * dim]).select(0, gather.clone()),
            None => x.reshape([tokens, heads * dim]),
        };
        x.reshape([self.groups, self.longest, heads, dim])
    }

    /// `[groups · longest, width]` → `[tokens, width]`
    fn unpad(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.order {
            Some((_, scatter)) => x.select(0, scatter.clone()),
            None => x,
        }
    }

    /// Keys or values as the cache keeps them, `[groups, kv_heads, longest, head_dim]`.
    pub(crate) fn padded_heads(&self, x: Tensor<3>) -> Tensor<4> {
        self.pad(x).swap_dims(1, 2)
    }
}

impl PackedAttention {
    fn bias(&self, window: Option<usize>) -> Tensor<4> {
        let of_window = self.biases.iter().find(|(of, _)| *of == window);
        of_window.map(|(_, bias)| bias.clone()).expect("a mask was made for every window of the spec")
    }

    /// The operation in burn's own operations, on any device and under autodiff.
    pub fn reference(&self, spec: AttentionSpec, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<2> {
        let (q, k, v) = (self.padded_heads(q), self.padded_heads(k), self.padded_heads(v));
        self.unpad(self.join(masked_attention(q, k, v, self.bias(spec.window), spec)))
    }

    /// `[groups, heads, longest, dim]` → `[groups · longest, heads · dim]`
    fn join(&self, x: Tensor<4>) -> Tensor<2> {
        let [groups, heads, longest, dim] = x.dims();
        x.swap_dims(1, 2).reshape([groups * longest, heads * dim])
    }

    /// Gradients of queries, keys and values for a gradient `[tokens, heads · head_dim]` of the
    /// output, in closed form; the softmax is computed again. Without autodiff.
    pub fn backward(
        &self,
        spec: AttentionSpec,
        q: Tensor<3>,
        k: Tensor<3>,
        v: Tensor<3>,
        d_y: Tensor<2>,
    ) -> [Tensor<3>; 3] {
        let shapes = [q.dims(), k.dims(), v.dims()];
        if let Some(cpu) = &self.cpu
            && q.dtype() == DType::F32
        {
            let heads = Heads::of(&q, &k, spec);
            let [q, k, v] = [q, k, v].map(values);
            let gradients = cpu_attention::backward(cpu, heads, &q, &k, &v, &values(d_y));
            let mut shapes = shapes.into_iter();
            return gradients.map(|gradient| {
                let shape = shapes.next().expect("three gradients, three shapes");
                Values::new(gradient, shape).into_tensor()
            });
        }
        // Slots of padding repeat a token, whose gradient must not count again.
        let filled = self.filled.clone().cast(d_y.dtype());
        let d_y = self.padded_heads(d_y.reshape(shapes[0])) * filled;
        let (q, k, v) = (self.padded_heads(q), self.padded_heads(k), self.padded_heads(v));
        let gradients = masked_attention_backward(q, k, v, self.bias(spec.window), spec, d_y);
        let mut shapes = shapes.into_iter();
        gradients.map(|gradient| {
            let shape = shapes.next().expect("three gradients, three shapes");
            self.unpad(self.join(gradient)).reshape(shape)
        })
    }
}

/// The values of a tensor on the CPU, row-major.
fn values<const D: usize>(x: Tensor<D>) -> Values {
    Values::take(x).expect("only f32 tensors of the CPU come here")
}

impl Attend for PackedAttention {
    fn attend(&mut self, _layer: usize, spec: AttentionSpec, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<2> {
        match &self.cpu {
            Some(groups) if q.dtype() == DType::F32 && !q.is_autodiff() => {
                let heads = Heads::of(&q, &k, spec);
                let [tokens, width] = [q.dims()[0], heads.heads * heads.dim];
                let y = cpu_attention::forward(groups, heads, &values(q), &values(k), &values(v));
                Values::new(y, [tokens, width]).into_tensor()
            }
            _ => self.reference(spec, q, k, v),
        }
    }
}

/// Softmax attention of queries `[batch, heads, rows, dim]` over keys and values
/// `[batch, kv_heads, columns, dim]` with an additive mask `[batch, 1, rows, columns]`; the softmax
/// in f32. → `[batch, heads, rows, dim]`
pub(crate) fn masked_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Tensor<4>,
    spec: AttentionSpec,
) -> Tensor<4> {
    let [batch, heads, rows, dim] = q.dims();
    let [_, kv_heads, columns, _] = k.dims();
    let dtype = q.dtype();
    // The query heads that share a key head become rows of one product: keys are never repeated.
    let shared = batch * kv_heads;
    let q = (q * spec.scale).reshape([shared, heads / kv_heads * rows, dim]);
    let k = k.reshape([shared, columns, dim]);
    let v = v.reshape([shared, columns, dim]);
    let scores = q.matmul(k.swap_dims(1, 2)).reshape([batch, heads, rows, columns]);
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let mut scores = scores.cast(wide);
    if let Some(cap) = spec.softcap {
        scores = (scores * cap.recip()).tanh() * cap;
    }
    let weights = softmax(scores + bias.cast(wide), 3).cast(dtype);
    let y = weights.reshape([shared, heads / kv_heads * rows, columns]).matmul(v);
    y.reshape([batch, heads, rows, dim])
}

/// Gradients of [`masked_attention`]'s queries, keys and values, in their shapes.
fn masked_attention_backward(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Tensor<4>,
    spec: AttentionSpec,
    d_y: Tensor<4>,
) -> [Tensor<4>; 3] {
    let ([batch, heads, rows, dim], [_, kv_heads, columns, _]) = (q.dims(), k.dims());
    let dtype = q.dtype();
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let (shared, stacked) = (batch * kv_heads, heads / kv_heads * rows);
    let q = (q * spec.scale).reshape([shared, stacked, dim]);
    let d_y = d_y.reshape([shared, stacked, dim]);
    let k = k.reshape([shared, columns, dim]);
    let v = v.reshape([shared, columns, dim]);
    let scores = q.clone().matmul(k.clone().swap_dims(1, 2)).reshape([batch, heads, rows, columns]);
    let scores = scores.cast(wide);
    let squashed = spec.softcap.map(|cap| (scores.clone() * cap.recip()).tanh());
    let scores = match (&squashed, spec.softcap) {
        (Some(squashed), Some(cap)) => squashed.clone() * cap,
        _ => scores,
    };
    let weights = softmax(scores + bias.cast(wide), 3);
    let d_weights = d_y.clone().matmul(v.swap_dims(1, 2)).reshape([batch, heads, rows, columns]).cast(wide);
    let mean = (weights.clone() * d_weights.clone()).sum_dim(3);
    let mut d_scores = weights.clone() * (d_weights - mean);
    if let Some(squashed) = squashed {
        d_scores = d_scores * (squashed.square().neg() + 1.0);
    }
    let d_scores = d_scores.cast(dtype).reshape([shared, stacked, columns]);
    let weights = weights.cast(dtype).reshape([shared, stacked, columns]);
    [
        (d_scores.clone().matmul(k) * spec.scale).reshape([batch, heads, rows, dim]),
        d_scores.swap_dims(1, 2).matmul(q).reshape([batch, kv_heads, columns, dim]),
        weights.swap_dims(1, 2).matmul(d_y).reshape([batch, kv_heads, columns, dim]),
    ]
}

/// The token in each slot of the padded batch (slots of padding repeat token 0), and each token's slot.
fn padded_order(groups: &[GroupSpan], longest: usize) -> (Vec<i32>, Vec<i32>) {
    let (mut gather, mut scatter) = (vec![0; groups.len() * longest], vec![]);
    for (index, group) in groups.iter().enumerate() {
        let length = group.prompt_len + group.answer_lens.iter().sum::<usize>();
        for offset in 0..length {
            gather[index * longest + offset] = (group.start + offset) as i32;
            scatter.push((index * longest + offset) as i32);
        }
    }
    (gather, scatter)
}

/// Additive mask `[groups, longest, longest]`.
fn mask(batch: &PackedBatch, longest: usize, window: Option<usize>) -> Vec<f32> {
    let mut values = vec![MASKED; batch.groups.len() * longest * longest];
    for (group, values) in batch.groups.iter().zip(values.chunks_mut(longest * longest)) {
        let positions = &batch.positions[group.start..];
        let mut open = |row: usize, columns: std::ops::Range<usize>| {
            for column in columns {
                let distance = (positions[row] - positions[column]) as usize;
                if window.is_none_or(|window| distance < window) {
                    values[row * longest + column] = 0.0;
                }
            }
        };
        (0..group.prompt_len).for_each(|row| open(row, 0..row + 1));
        let mut start = group.prompt_len;
        for length in &group.answer_lens {
            for row in start..start + length {
                open(row, 0..group.prompt_len);
                open(row, start..row + 1);
            }
            start += length;
        }
    }
    values
}
