//! Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245) of packed, prefix-shared batches:
//! `y = softmax(cap · tanh(scale · q kᵀ / cap)) v`, where the tokens of a prompt see the prompt, and those of an answer the
//! prompt and their own answer, up to themselves.
//!
//! With `P` the weights, `z` the scores and `g = d_y vᵀ`: `d_z = P (g − Σ P g)`, times `scale` and the derivative of the cap;
//! `d_q = d_z k`, `d_k = d_zᵀ q`, `d_v = Pᵀ d_y`.
//!
//! A head may have a sink, a score of its own that takes its share `P₀` of the softmax and adds nothing: the formulas stay,
//! `P` summing to less than 1, and the sink's gradient is `−Σ P₀ (d_y · y)`.
//!
//! Token-wise layers see `[tokens, hidden]` without padding. The reference pads groups to the longest one and masks; the
//! forms do neither.

use crate::cpu::{self, Values, on_cpu};
#[cfg(feature = "gpu")]
use crate::gpu::form::{self, attention::DevicePlans};
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation::softmax};
use std::sync::{Arc, Mutex, OnceLock};

/// Score of a pair of tokens that must not see each other; finite, so that a row of padding,
/// which sees nothing, gives no NaN.
const MASKED: f32 = -1e30;

/// How the tokens of a block see each other: `softmax(cap · tanh(scale · q kᵀ / cap))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// A token sees this many most recent positions, itself included; `None` sees all.
    pub window: Option<usize>,
    /// Factor on the scores, mostly `1 / √head_dim`.
    pub scale: f64,
    /// Bound of the scores (Gemma 2's `attn_logit_softcapping`); `None` leaves them as they are.
    pub softcap: Option<f64>,
}

impl AttentionSpec {
    /// All tokens, scaled by `1 / √head_dim`.
    pub fn plain(head_dim: usize) -> Self {
        Self { window: None, scale: (head_dim as f64).powf(-0.5), softcap: None }
    }
}

/// Sizes and options of one attention call, as the forms take them.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
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

impl Heads {
    /// So many query heads, and heads of keys and values, of `dim` channels.
    pub fn new([heads, kv_heads, dim]: [usize; 3], spec: AttentionSpec) -> Self {
        let (scale, softcap) = (spec.scale as f32, spec.softcap.map(|cap| cap as f32));
        Self { heads, kv_heads, dim, window: spec.window, scale, softcap }
    }

    /// The sizes of queries `[tokens, heads, dim]` and keys `[tokens, kv_heads, dim]`.
    fn of(q: &Tensor<3>, k: &Tensor<3>, spec: AttentionSpec) -> Self {
        let [_, heads, dim] = q.dims();
        Self::new([heads, k.dims()[1], dim], spec)
    }
}

/// A prompt and its answers among the tokens of a batch. Positions of an answer go on from the prompt's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Index of the first prompt token.
    pub start: usize,
    /// Prompt tokens.
    pub prompt_len: usize,
    /// Tokens of each answer; they follow the prompt one after the other.
    pub answer_lens: Vec<usize>,
}

impl Group {
    /// Tokens of the whole group.
    pub fn tokens(&self) -> usize {
        self.prompt_len + self.answer_lens.iter().sum::<usize>()
    }
}

/// Which tokens of a batch see each other.
#[derive(Debug, Clone)]
pub struct PackedAttention {
    groups: Arc<[Group]>,
    device: Device,
    /// The score of each head that takes its share of the softmax, `[heads]`.
    sinks: Option<Tensor<1>>,
    /// What the reference needs beside the groups, made when it runs first.
    padding: Arc<OnceLock<Padding>>,
    /// Additive mask `[groups, 1, longest, longest]` for each window met so far.
    masks: Arc<Mutex<Masks>>,
    /// What the kernels of a graphics card know of the groups, likewise.
    #[cfg(feature = "gpu")]
    plans: Arc<DevicePlans>,
}

/// Windows and their masks.
type Masks = Vec<(Option<usize>, Tensor<4>)>;

/// Groups padded to the longest.
#[derive(Debug)]
struct Padding {
    /// `[groups · longest]`: which token stands in each padded slot, and `[tokens]`: in which slot
    /// each token stands. `None` when the two orders are the same.
    order: Option<(Tensor<1, Int>, Tensor<1, Int>)>,
    /// 1 where a slot holds a token and 0 in the padding, `[groups, 1, longest, 1]`.
    filled: Tensor<4>,
}

impl Padding {
    fn new(groups: &[Group], longest: usize, device: &Device) -> Self {
        let ints = |values: Vec<i32>| {
            let shape = [values.len()];
            Tensor::<1, Int>::from_data(TensorData::new(values, shape), device)
        };
        let tokens: usize = groups.iter().map(Group::tokens).sum();
        let order = (groups.len() * longest != tokens).then(|| {
            let (gather, scatter) = padded_order(groups, longest);
            (ints(gather), ints(scatter))
        });
        let of_group = |group: &Group| {
            let tokens = group.tokens();
            (0..longest).map(move |slot| if slot < tokens { 1.0 } else { 0.0 })
        };
        let filled: Vec<f32> = groups.iter().flat_map(of_group).collect();
        let filled = Tensor::from_data(TensorData::new(filled, [groups.len(), 1, longest, 1]), device);
        Self { order, filled }
    }
}

impl PackedAttention {
    /// The attention of these groups, which lie end to end.
    pub fn new(groups: Vec<Group>, device: &Device) -> Self {
        Self {
            groups: groups.into(),
            device: device.clone(),
            sinks: None,
            padding: Arc::default(),
            masks: Arc::default(),
            #[cfg(feature = "gpu")]
            plans: Arc::default(),
        }
    }

    /// The attention of heads with these sinks, `[heads]`.
    #[must_use]
    pub fn with_sinks(self, sinks: Option<Tensor<1>>) -> Self {
        Self { sinks, ..self }
    }

    /// The sinks as the CPU's form takes them.
    fn host_sinks(&self) -> Option<Vec<f32>> {
        self.sinks.as_ref().map(|sinks| sinks.clone().into_data().iter::<f32>().collect())
    }

    /// Queries `[tokens, heads, head_dim]`, keys and values `[tokens, kv_heads, head_dim]`
    /// → `[tokens, heads · head_dim]`.
    pub fn forward(&self, spec: AttentionSpec, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<2> {
        let heads = Heads::of(&q, &k, spec);
        if !Values::fit(&q) {
            // The kernels of a graphics card know no sinks.
            #[cfg(feature = "gpu")]
            if self.sinks.is_none()
                && let Some(y) = form::attention::forward(&self.plans, &self.groups, heads, [&q, &k, &v])
            {
                return y;
            }
            return self.reference(spec, q, k, v);
        }
        let [tokens, width] = [q.dims()[0], heads.heads * heads.dim];
        let y = cpu::attention::forward(
            &self.groups,
            heads,
            &values(q),
            &values(k),
            &values(v),
            self.host_sinks().as_deref(),
        );
        Values::new(y, [tokens, width]).into_tensor()
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
        if !on_cpu(&self.device) || q.dtype() != DType::F32 {
            #[cfg(feature = "gpu")]
            if self.sinks.is_none() {
                let (heads, inputs) = (Heads::of(&q, &k, spec), [&q, &k, &v]);
                if let Some(found) = form::attention::backward(&self.plans, &self.groups, heads, inputs, &d_y) {
                    return found;
                }
            }
            return self.reference_backward(spec, q, k, v, d_y);
        }
        let (heads, mut shapes) = (Heads::of(&q, &k, spec), [q.dims(), k.dims(), v.dims()].into_iter());
        let [q, k, v] = [q, k, v].map(values);
        let gradients =
            cpu::attention::backward(&self.groups, heads, [&q, &k, &v], self.host_sinks().as_deref(), &values(d_y));
        gradients.map(|gradient| {
            let shape = shapes.next().expect("three gradients, three shapes");
            Values::new(gradient, shape).into_tensor()
        })
    }

    /// The gradient of the sinks, `[heads]`, for a gradient `[tokens, heads · head_dim]` of the output. Without autodiff.
    pub fn sinks_gradient(&self, spec: AttentionSpec, [q, k, v]: [Tensor<3>; 3], d_y: Tensor<2>) -> Tensor<1> {
        let [tokens, heads, dim] = q.dims();
        // What a head gives for values of 1 is what its sink leaves of the softmax.
        let left = self.forward(spec, q.clone(), k.clone(), v.ones_like());
        let given = self.forward(spec, q, k, v) * d_y;
        let of_heads = |x: Tensor<2>| x.reshape([tokens, heads, dim]);
        let taken = of_heads(left).narrow(2, 0, 1).neg() + 1.0;
        (taken * of_heads(given).sum_dim(2)).sum_dim(0).neg().reshape([heads])
    }

    /// [`forward`](Self::forward) in burn's own operations, on any device and under autodiff.
    pub fn reference(&self, spec: AttentionSpec, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<2> {
        let (q, k, v) = (self.padded_heads(q), self.padded_heads(k), self.padded_heads(v));
        self.unpad(join(masked_attention([q, k, v], self.mask(spec.window), spec, self.sinks.clone())))
    }

    /// [`backward`](Self::backward) in burn's own operations.
    pub fn reference_backward(
        &self,
        spec: AttentionSpec,
        q: Tensor<3>,
        k: Tensor<3>,
        v: Tensor<3>,
        d_y: Tensor<2>,
    ) -> [Tensor<3>; 3] {
        let shapes = [q.dims(), k.dims(), v.dims()];
        // Slots of padding repeat a token, whose gradient must not count again.
        let filled = self.padding().filled.clone().cast(d_y.dtype());
        let d_y = self.padded_heads(d_y.reshape(shapes[0])) * filled;
        let (q, k, v) = (self.padded_heads(q), self.padded_heads(k), self.padded_heads(v));
        let gradients = masked_attention_backward([q, k, v], self.mask(spec.window), spec, self.sinks.clone(), d_y);
        let mut shapes = shapes.into_iter();
        gradients.map(|gradient| {
            let shape = shapes.next().expect("three gradients, three shapes");
            self.unpad(join(gradient)).reshape(shape)
        })
    }

    /// Keys or values as the cache keeps them, `[groups, kv_heads, longest, head_dim]`.
    pub fn padded_heads(&self, x: Tensor<3>) -> Tensor<4> {
        self.pad(x).swap_dims(1, 2)
    }

    fn longest(&self) -> usize {
        self.groups.iter().map(Group::tokens).max().unwrap_or(0)
    }

    fn padding(&self) -> &Padding {
        self.padding.get_or_init(|| Padding::new(&self.groups, self.longest(), &self.device))
    }

    fn mask(&self, window: Option<usize>) -> Tensor<4> {
        let mut masks = self.masks.lock().expect("no thread panics while it makes a mask");
        if let Some((_, mask)) = masks.iter().find(|(of, _)| *of == window) {
            return mask.clone();
        }
        let (count, longest) = (self.groups.len(), self.longest());
        let data = TensorData::new(mask(&self.groups, longest, window), [count, 1, longest, longest]);
        let mask = Tensor::from_data(data, &self.device);
        masks.push((window, mask.clone()));
        mask
    }

    /// `[tokens, heads, head_dim]` → `[groups, longest, heads, head_dim]`
    fn pad(&self, x: Tensor<3>) -> Tensor<4> {
        let [tokens, heads, dim] = x.dims();
        let x = match &self.padding().order {
            Some((gather, _)) => x.reshape([tokens, heads * dim]).select(0, gather.clone()),
            None => x.reshape([tokens, heads * dim]),
        };
        x.reshape([self.groups.len(), self.longest(), heads, dim])
    }

    /// `[groups · longest, width]` → `[tokens, width]`
    fn unpad(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.padding().order {
            Some((_, scatter)) => x.select(0, scatter.clone()),
            None => x,
        }
    }
}

/// `[groups, heads, longest, dim]` → `[groups · longest, heads · dim]`
fn join(x: Tensor<4>) -> Tensor<2> {
    let [groups, heads, longest, dim] = x.dims();
    x.swap_dims(1, 2).reshape([groups * longest, heads * dim])
}

/// The values of a tensor on the CPU, row-major.
fn values<const D: usize>(x: Tensor<D>) -> Values {
    Values::take(x).expect("only f32 tensors of the CPU come here")
}

/// Softmax attention of queries `[batch, heads, rows, dim]` over keys and values
/// `[batch, kv_heads, columns, dim]` with an additive mask `[batch, 1, rows, columns]`; the softmax
/// in f32, with a sink for each head, `[heads]`, if there are any. → `[batch, heads, rows, dim]`
pub fn masked_attention(
    [q, k, v]: [Tensor<4>; 3],
    bias: Tensor<4>,
    spec: AttentionSpec,
    sinks: Option<Tensor<1>>,
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
    let weights = weights(scores + bias.cast(wide), sinks).cast(dtype);
    let y = weights.reshape([shared, heads / kv_heads * rows, columns]).matmul(v);
    y.reshape([batch, heads, rows, dim])
}

/// Softmax weights of scores `[batch, heads, rows, columns]`, without what the sinks `[heads]` take.
fn weights(scores: Tensor<4>, sinks: Option<Tensor<1>>) -> Tensor<4> {
    let Some(sinks) = sinks else { return softmax(scores, 3) };
    let [batch, heads, rows, columns] = scores.dims();
    let sinks = sinks.cast(scores.dtype()).reshape([1, heads, 1, 1]).expand([batch, heads, rows, 1]);
    softmax(Tensor::cat(vec![scores, sinks], 3), 3).narrow(3, 0, columns)
}

/// Gradients of [`masked_attention`]'s queries, keys and values, in their shapes.
fn masked_attention_backward(
    [q, k, v]: [Tensor<4>; 3],
    bias: Tensor<4>,
    spec: AttentionSpec,
    sinks: Option<Tensor<1>>,
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
    let weights = weights(scores + bias.cast(wide), sinks);
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
fn padded_order(groups: &[Group], longest: usize) -> (Vec<i32>, Vec<i32>) {
    let (mut gather, mut scatter) = (vec![0; groups.len() * longest], vec![]);
    for (index, group) in groups.iter().enumerate() {
        for offset in 0..group.tokens() {
            gather[index * longest + offset] = (group.start + offset) as i32;
            scatter.push((index * longest + offset) as i32);
        }
    }
    (gather, scatter)
}

/// Additive mask `[groups, longest, longest]`.
fn mask(groups: &[Group], longest: usize, window: Option<usize>) -> Vec<f32> {
    let mut values = vec![MASKED; groups.len() * longest * longest];
    for (group, values) in groups.iter().zip(values.chunks_mut((longest * longest).max(1))) {
        let answers = group.answer_lens.iter().flat_map(|&length| group.prompt_len..group.prompt_len + length);
        let positions: Vec<usize> = (0..group.prompt_len).chain(answers).collect();
        let mut open = |row: usize, columns: std::ops::Range<usize>| {
            for column in columns {
                let distance = positions[row] - positions[column];
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{random, wide};

    #[test]
    fn the_form_follows_the_reference_without_its_masks() {
        let groups = || {
            let first = Group { start: 0, prompt_len: 5, answer_lens: vec![2, 4] };
            vec![first, Group { start: 11, prompt_len: 1, answer_lens: vec![3] }]
        };
        for (window, softcap, sinks) in [(None, None, false), (Some(3), Some(5.0), false), (Some(4), None, true)] {
            let spec = AttentionSpec { window, softcap, ..AttentionSpec::plain(8) };
            let attention = PackedAttention::new(groups(), &Device::flex()).with_sinks(sinks.then(|| random([4])));
            let ([q, k, v], d_y) = ([4, 2, 2].map(|heads| random([15, heads, 8])), random([15, 32]));
            let y = attention.forward(spec, q.clone(), k.clone(), v.clone());
            let gradients = attention.backward(spec, q.clone(), k.clone(), v.clone(), d_y.clone());
            assert!(attention.padding.get().is_none());
            assert!(attention.masks.lock().expect("nobody panicked").is_empty());
            let near = |found: Vec<f64>, expected: Vec<f64>| {
                assert_eq!(found.len(), expected.len());
                assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{window:?}");
            };
            near(wide(&y), wide(&attention.reference(spec, q.clone(), k.clone(), v.clone())));
            let expected = attention.reference_backward(spec, q, k, v, d_y);
            gradients.iter().zip(&expected).for_each(|(a, b)| near(wide(a), wide(b)));
            assert_eq!(attention.masks.lock().expect("nobody panicked").len(), 1);
        }
    }
}
