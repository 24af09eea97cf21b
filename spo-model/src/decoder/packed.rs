//! Packed, prefix-shared batches on a device. Token-wise layers see `[tokens, hidden]` without
//! padding; groups are padded to the longest one inside the attention call only.

use super::{Attend, RopeTables};
use crate::ModelSpec;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation::softmax};
use spo_data::{GroupSpan, PackedBatch};

/// Score of a pair of tokens that must not see each other; finite, so that a row of padding,
/// which sees nothing, gives no NaN.
const MASKED: f32 = -1e30;

/// The tensors of one [`PackedBatch`].
#[derive(Debug, Clone)]
pub struct PackedInputs {
    /// Token ids, `[tokens]`.
    pub ids: Tensor<1, Int>,
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
            rope: RopeTables::new(&spec.rope, spec.head_dim, &batch.positions, dtype, device),
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
    /// Additive mask `[groups, 1, longest, longest]` for each window in use.
    biases: Vec<(Option<usize>, Tensor<4>)>,
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
        let mut windows: Vec<_> = spec.layers.iter().map(|layer| layer.window).collect();
        windows.sort_unstable();
        windows.dedup();
        let biases = windows.into_iter().map(|window| {
            let values = mask(batch, longest, window);
            let data = TensorData::new(values, [groups, 1, longest, longest]);
            (window, Tensor::from_data(data, device))
        });
        Self { groups, longest, order, biases: biases.collect() }
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

impl Attend for PackedAttention {
    fn attend(&mut self, _layer: usize, window: Option<usize>, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<2> {
        let bias = self.biases.iter().find(|(of, _)| *of == window).map(|(_, bias)| bias.clone());
        let bias = bias.expect("a mask was made for every window of the spec");
        let (q, k, v) = (self.pad(q).swap_dims(1, 2), self.padded_heads(k), self.padded_heads(v));
        let y = masked_attention(q, k, v, bias).swap_dims(1, 2);
        let [groups, longest, heads, dim] = y.dims();
        self.unpad(y.reshape([groups * longest, heads * dim]))
    }
}

/// Softmax attention of queries `[batch, heads, rows, dim]` over keys and values
/// `[batch, kv_heads, columns, dim]` with an additive mask `[batch, 1, rows, columns]`; the softmax
/// in f32. → `[batch, heads, rows, dim]`
pub(crate) fn masked_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Tensor<4>) -> Tensor<4> {
    let [batch, heads, rows, dim] = q.dims();
    let [_, kv_heads, columns, _] = k.dims();
    let dtype = q.dtype();
    // The query heads that share a key head become rows of one product: keys are never repeated.
    let shared = batch * kv_heads;
    let q = (q * (dim as f64).powf(-0.5)).reshape([shared, heads / kv_heads * rows, dim]);
    let k = k.reshape([shared, columns, dim]);
    let v = v.reshape([shared, columns, dim]);
    let scores = q.matmul(k.swap_dims(1, 2)).reshape([batch, heads, rows, columns]);
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let weights = softmax(scores.cast(wide) + bias.cast(wide), 3).cast(dtype);
    let y = weights.reshape([shared, heads / kv_heads * rows, columns]).matmul(v);
    y.reshape([batch, heads, rows, dim])
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
