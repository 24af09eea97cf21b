//! A model's weights as the CPU's own decoding reads them.

use crate::generate::WeightFormat;
use crate::parameters::{Parameter, for_each};
use crate::spec::NormKind;
use crate::{CausalLm, ModelSpec, decoder};
use burn::tensor::{DType, Tensor};
use spo_kernels::cpu::Values;
use spo_kernels::cpu::decode::elementwise::add;
use spo_kernels::cpu::decode::{Rows, Weight, product};
use std::collections::BTreeMap;

/// All weights of a model: its own tensors, until copies of them pay.
#[derive(Debug)]
pub(super) struct Weights {
    /// `None` where the head's weights are the embedding.
    embedding: Option<Weight>,
    embedding_scale: Option<f32>,
    pub layers: Vec<Layer>,
    pub norm: Vec<f32>,
    pub head: Linear,
}

/// The weights of one block.
#[derive(Debug)]
pub(super) struct Layer {
    pub attention_norm: Option<Vec<f32>>,
    /// Queries, keys and values.
    pub qkv: Linear,
    pub q_norm: Option<Vec<f32>>,
    pub k_norm: Option<Vec<f32>>,
    pub output: Linear,
    /// On the attention's output.
    pub attended_norm: Option<Vec<f32>>,
    pub mlp_norm: Option<Vec<f32>>,
    pub feed_forward: FeedForward,
    /// Scores that take their share of each head's softmax.
    pub sinks: Option<Vec<f32>>,
    /// On the feed-forward block's output.
    pub fed_norm: Option<Vec<f32>>,
    /// What the block's output is multiplied by and what is added, where the model is steered.
    pub film: Option<[Vec<f32>; 2]>,
}

/// A gated feed-forward block.
#[derive(Debug)]
pub(super) struct Gated {
    /// Gate, then up.
    pub gate_up: Linear,
    pub down: Linear,
}

/// What stands behind a block's attention.
#[derive(Debug)]
pub(super) enum FeedForward {
    /// One feed-forward block for all tokens.
    Dense(Gated),
    /// A few of many for each.
    Experts {
        router: Linear,
        experts: Vec<Gated>,
        /// One for all tokens, and how much of it each gets.
        shared: Option<(Gated, Linear)>,
    },
}

impl FeedForward {
    fn parts(&self) -> Vec<&Linear> {
        match self {
            Self::Dense(Gated { gate_up, down }) => vec![gate_up, down],
            Self::Experts { router, experts, shared } => {
                let mut parts = vec![router];
                experts.iter().for_each(|expert| parts.extend([&expert.gate_up, &expert.down]));
                shared.iter().for_each(|(shared, gate)| parts.extend([&shared.gate_up, &shared.down, gate]));
                parts
            }
        }
    }

    fn parts_mut(&mut self) -> Vec<&mut Linear> {
        match self {
            Self::Dense(Gated { gate_up, down }) => vec![gate_up, down],
            Self::Experts { router, experts, shared } => {
                let mut parts = vec![router];
                experts.iter_mut().for_each(|expert| parts.extend([&mut expert.gate_up, &mut expert.down]));
                shared.iter_mut().for_each(|(s, gate)| parts.extend([&mut s.gate_up, &mut s.down, gate]));
                parts
            }
        }
    }
}

/// Projections of the same input, their outputs side by side, and perhaps a smaller copy of their weights for drafts.
#[derive(Debug)]
pub(super) struct Linear {
    weights: Vec<Weight>,
    drafts: Vec<Weight>,
    bias: Option<Vec<f32>>,
}

/// Which weights compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// The ones asked for.
    Full,
    /// The smaller copy, if there is one.
    Draft,
}

impl Linear {
    /// `[rows, inputs]` → `[rows, outputs]`
    pub fn forward(&self, x: &Rows, weights: Use) -> Rows {
        let weights = if weights == Use::Draft && !self.drafts.is_empty() { &self.drafts } else { &self.weights };
        let mut y = product(weights, x);
        if let Some(bias) = &self.bias {
            y.rows_mut().for_each(|row| add(row, bias));
        }
        y
    }

    fn bytes(&self) -> usize {
        self.weights.iter().chain(&self.drafts).map(Weight::bytes).sum()
    }

    fn copy(&mut self, drafts: bool) {
        if drafts {
            self.drafts = self.weights.iter().map(Weight::q8).collect();
        }
        self.weights.iter_mut().for_each(copy);
    }
}

/// Leaves the model's memory for a copy that products read faster.
fn copy(weight: &mut Weight) {
    if let Some(copy) = weight.copied() {
        *weight = copy;
    }
}

impl Weights {
    /// Takes a model apart, tensor by tensor. The error says what this way of decoding lacks.
    pub fn new(model: CausalLm, format: WeightFormat) -> Result<Self, String> {
        let spec = model.spec().clone();
        let embedding_scale = model.embedding_scale().map(|scale| scale as f32);
        let (model, mut films) = without_films(model);
        let mut source = Source::new(model, &spec, format);
        let hidden = spec.hidden_size;
        let (embedding, head) = match spec.tied {
            true => (None, source.projection(&["embed_tokens".into()], hidden)?),
            false => {
                let embedding = source.weight("embed_tokens", hidden, WeightFormat::F32)?;
                (Some(embedding), source.projection(&["lm_head".into()], hidden)?)
            }
        };
        let mut layer = |layer: usize| {
            let path = |name: &str| format!("layers.{layer}.{name}");
            let qkv = ["q_proj", "k_proj", "v_proj"].map(|name| path(&format!("self_attn.{name}")));
            Ok(Layer {
                attention_norm: source.norm(&path("input_layernorm")),
                qkv: source.stacked(&path("self_attn.qkv_proj"), &qkv, hidden)?,
                q_norm: source.norm(&path("self_attn.q_norm")),
                k_norm: source.norm(&path("self_attn.k_norm")),
                output: source.projection(&[path("self_attn.o_proj")], spec.heads * spec.head_dim)?,
                attended_norm: source.norm(&path("post_attention_layernorm")),
                mlp_norm: source.norm(&path("pre_feedforward_layernorm")),
                feed_forward: source.feed_forward(&spec, layer)?,
                sinks: source.find(&path("self_attn.sinks")).map(|(sinks, _)| sinks.to_vec()),
                fed_norm: source.norm(&path("post_feedforward_layernorm")),
                film: films[layer].take(),
            })
        };
        let layers = (0..spec.layers.len()).map(&mut layer).collect::<Result<_, String>>()?;
        let mut norm = source.norm("norm").ok_or("it has no final norm")?;
        norm.iter_mut().for_each(|weight| *weight *= spec.logit_scale as f32);
        source.finish()?;
        Ok(Self { embedding, embedding_scale, layers, norm, head })
    }

    /// The embeddings of tokens, `[tokens, hidden]`.
    pub fn embed(&self, tokens: impl ExactSizeIterator<Item = u32>, spec: &ModelSpec) -> Rows {
        let table = self.embedding.as_ref().unwrap_or(&self.head.weights[0]);
        let mut x = Rows::new(tokens.len(), spec.hidden_size);
        for (row, token) in x.rows_mut().zip(tokens) {
            table.row(token as usize, row);
            if let Some(scale) = self.embedding_scale {
                row.iter_mut().for_each(|x| *x *= scale);
            }
        }
        x
    }

    /// Memory of the matrices.
    pub fn bytes(&self) -> usize {
        let fed = |l: &Layer| l.feed_forward.parts().into_iter().map(Linear::bytes).sum::<usize>();
        let layer = |l: &Layer| l.qkv.bytes() + l.output.bytes() + fed(l);
        self.embedding.as_ref().map_or(0, Weight::bytes)
            + self.head.bytes()
            + self.layers.iter().map(layer).sum::<usize>()
    }

    /// Makes copies that products read faster and uses them instead of the model's memory, and others in 8 bits for drafts
    /// if those are wanted. No token depends on them. An embedding that is not the head stays: its rows are only looked up.
    pub fn copy(&mut self, drafts: bool) {
        let layers = self.layers.iter_mut().flat_map(|layer| {
            let mut parts = layer.feed_forward.parts_mut();
            parts.extend([&mut layer.qkv, &mut layer.output]);
            parts
        });
        // The largest first, while there are few copies beside it.
        [&mut self.head].into_iter().chain(layers).for_each(|linear| linear.copy(drafts));
    }
}

/// The model without what steers it, and the factors of each block by the z that it is steered by.
fn without_films(mut model: CausalLm) -> (CausalLm, Vec<Option<[Vec<f32>; 2]>>) {
    let numbers = |factor: Tensor<2>| factor.narrow(0, 0, 1).into_data().iter::<f32>().collect();
    let films =
        model.layers.iter_mut().map(|block| block.film.take().map(|film| film.factors().map(numbers))).collect();
    model.steering = None;
    (model, films)
}

/// See [`Source::find`].
fn values<const D: usize>(value: Tensor<D>) -> (Values, bool) {
    let bf16 = value.dtype() == DType::BF16;
    (Values::take(value.cast(DType::F32)).expect("an f32 tensor of the CPU"), bf16)
}

/// The parameters not yet taken.
struct Source {
    parameters: BTreeMap<String, Parameter>,
    /// The weights of projections by path, which become dense one by one.
    projections: BTreeMap<String, decoder::Linear>,
    dtype: DType,
    /// What is added to the weights of norms.
    from: f32,
    format: WeightFormat,
}

impl Source {
    fn new(model: CausalLm, spec: &ModelSpec, format: WeightFormat) -> Self {
        let from = if spec.norm == NormKind::RmsFromOne { 1.0 } else { 0.0 };
        let dtype = model.dtype();
        let (model, projections) = model.without_projections();
        let mut parameters = BTreeMap::new();
        for_each(&model, "", |parameter| {
            parameters.insert(parameter.path.clone(), parameter);
        });
        Self { parameters, projections, dtype, from, format }
    }

    /// Values in f32, in the parameter's own memory if it has that type, and whether they were in bf16.
    fn find(&mut self, path: &str) -> Option<(Values, bool)> {
        self.parameters.remove(path).map(|parameter| values(parameter.value))
    }

    fn has(&self, path: &str) -> bool {
        self.projections.contains_key(path) || self.parameters.contains_key(&format!("{path}.weight"))
    }

    /// The weight `[outputs, inputs]` at a path.
    fn weight(&mut self, path: &str, inputs: usize, format: WeightFormat) -> Result<Weight, String> {
        let found = match self.projections.remove(path) {
            Some(linear) => Some(values(linear.merged_weight(self.dtype))),
            None => self.find(&format!("{path}.weight")),
        };
        let (values, bf16) = found.ok_or_else(|| format!("it has no {path}.weight"))?;
        let weight = Weight::shared(values, inputs);
        Ok(match format {
            WeightFormat::F32 if !bf16 => weight,
            WeightFormat::F32 | WeightFormat::Bf16 => weight.bf16(),
            WeightFormat::Q8 => weight.q8(),
        })
    }

    /// The factors of a norm, where there is one.
    fn norm(&mut self, path: &str) -> Option<Vec<f32>> {
        let (weight, _) = self.find(&format!("{path}.weight"))?;
        Some(weight.iter().map(|weight| weight + self.from).collect())
    }

    /// A block's feed-forward part.
    fn feed_forward(&mut self, spec: &ModelSpec, layer: usize) -> Result<FeedForward, String> {
        let (hidden, path) = (spec.hidden_size, format!("layers.{layer}"));
        let Some(experts) = spec.experts.as_ref().filter(|_| spec.layers[layer].experts) else {
            return self.gated(&format!("{path}.mlp"), hidden, spec.intermediate_size).map(FeedForward::Dense);
        };
        let path = format!("{path}.moe");
        let router = self.exact(&format!("{path}.router"), hidden)?;
        let each = |index| self.gated(&format!("{path}.experts.{index}"), hidden, experts.intermediate_size);
        let all = (0..experts.count).map(each).collect::<Result<_, _>>()?;
        let shared = match experts.shared {
            Some(inner) => {
                let gate = self.exact(&format!("{path}.shared_expert_gate"), hidden)?;
                Some((self.gated(&format!("{path}.shared_expert"), hidden, inner)?, gate))
            }
            None => None,
        };
        Ok(FeedForward::Experts { router, experts: all, shared })
    }

    fn gated(&mut self, path: &str, hidden: usize, inner: usize) -> Result<Gated, String> {
        let gate_up = ["gate_proj", "up_proj"].map(|name| format!("{path}.{name}"));
        let gate_up = self.stacked(&format!("{path}.gate_up_proj"), &gate_up, hidden)?;
        Ok(Gated { gate_up, down: self.projection(&[format!("{path}.down_proj")], inner)? })
    }

    /// A projection that stays as it is, whatever the format: what routes tokens.
    fn exact(&mut self, path: &str, inputs: usize) -> Result<Linear, String> {
        let format = std::mem::replace(&mut self.format, WeightFormat::F32);
        let projection = self.projection(&[path.to_owned()], inputs);
        self.format = format;
        projection
    }

    /// One projection that is several already, or those of the same input side by side.
    fn stacked(&mut self, whole: &str, parts: &[String], inputs: usize) -> Result<Linear, String> {
        match self.has(whole) {
            true => self.projection(&[whole.to_owned()], inputs),
            false => self.projection(parts, inputs),
        }
    }

    /// Projections of the same input, side by side.
    fn projection(&mut self, paths: &[String], inputs: usize) -> Result<Linear, String> {
        let (mut weights, mut bias, mut outputs) = (vec![], vec![], 0);
        for path in paths {
            let weight = self.weight(path, inputs, self.format)?;
            // A projection without a bias beside one with it has a bias of 0.
            if let Some((values, _)) = self.find(&format!("{path}.bias")) {
                bias.resize(outputs, 0.0);
                bias.extend_from_slice(&values);
            }
            outputs += weight.outputs();
            weights.push(weight);
        }
        let bias = (!bias.is_empty()).then(|| {
            bias.resize(outputs, 0.0);
            bias
        });
        Ok(Linear { weights, drafts: vec![], bias })
    }

    /// Refuses a model with parameters that nothing here uses.
    fn finish(self) -> Result<(), String> {
        match self.parameters.into_keys().chain(self.projections.into_keys()).next() {
            None => Ok(()),
            Some(path) => Err(format!("it has {path}")),
        }
    }
}
