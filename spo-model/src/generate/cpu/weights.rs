//! A model's weights as the CPU's own decoding reads them.

use super::elementwise::add;
use super::matrix::{Matrix, Storage};
use super::rows::Rows;
use crate::parameters::{Parameter, for_each};
use crate::spec::NormKind;
use crate::{CausalLm, ModelSpec};
use std::collections::BTreeMap;

/// All weights of a model.
#[derive(Debug)]
pub(super) struct Weights {
    /// `None` where the head's weights are the embedding.
    embedding: Option<Matrix>,
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
    /// Gate, then up.
    pub gate_up: Linear,
    pub down: Linear,
    /// On the feed-forward block's output.
    pub fed_norm: Option<Vec<f32>>,
}

/// A projection, and perhaps a smaller copy of its weights for drafts.
#[derive(Debug)]
pub(super) struct Linear {
    matrix: Matrix,
    draft: Option<Matrix>,
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
        let matrix = match (&self.draft, weights) {
            (Some(draft), Use::Draft) => draft,
            _ => &self.matrix,
        };
        let mut y = matrix.product(x);
        if let Some(bias) = &self.bias {
            y.rows_mut().for_each(|row| add(row, bias));
        }
        y
    }

    fn bytes(&self) -> usize {
        self.matrix.bytes() + self.draft.as_ref().map_or(0, Matrix::bytes)
    }
}

impl Weights {
    /// Takes a model apart, tensor by tensor. The error says what this way of decoding lacks.
    pub fn new(model: CausalLm, storage: Storage, draft: bool) -> Result<Self, String> {
        let spec = model.spec().clone();
        let embedding_scale = model.embedding_scale().map(|scale| scale as f32);
        let mut source = Source::new(model.merged().dequantised(), &spec, storage, draft);
        let (hidden, inner) = (spec.hidden_size, spec.intermediate_size);
        let embedding = source.take("embed_tokens.weight")?;
        let (embedding, head) = match spec.tied {
            true => (None, source.linear(embedding, hidden, None)),
            false => {
                let embedding = Matrix::new(&embedding, hidden, Storage::Exact);
                (Some(embedding), source.projection(&["lm_head".into()], hidden)?)
            }
        };
        let layer = |layer: usize| {
            let path = |name: &str| format!("layers.{layer}.{name}");
            let qkv = ["q_proj", "k_proj", "v_proj"].map(|name| path(&format!("self_attn.{name}")));
            let gate_up = ["gate_proj", "up_proj"].map(|name| path(&format!("mlp.{name}")));
            Ok(Layer {
                attention_norm: source.norm(&path("input_layernorm")),
                qkv: source.stacked(&path("self_attn.qkv_proj"), &qkv, hidden)?,
                q_norm: source.norm(&path("self_attn.q_norm")),
                k_norm: source.norm(&path("self_attn.k_norm")),
                output: source.projection(&[path("self_attn.o_proj")], spec.heads * spec.head_dim)?,
                attended_norm: source.norm(&path("post_attention_layernorm")),
                mlp_norm: source.norm(&path("pre_feedforward_layernorm")),
                gate_up: source.stacked(&path("mlp.gate_up_proj"), &gate_up, hidden)?,
                down: source.projection(&[path("mlp.down_proj")], inner)?,
                fed_norm: source.norm(&path("post_feedforward_layernorm")),
            })
        };
        let layers = (0..spec.layers.len()).map(layer).collect::<Result<_, String>>()?;
        let norm = source.norm("norm").ok_or("it has no final norm")?;
        source.finish()?;
        Ok(Self { embedding, embedding_scale, layers, norm, head })
    }

    /// The embeddings of tokens, `[tokens, hidden]`.
    pub fn embed(&self, tokens: impl ExactSizeIterator<Item = u32>, spec: &ModelSpec) -> Rows {
        let table = self.embedding.as_ref().unwrap_or(&self.head.matrix);
        let mut x = Rows::new(tokens.len(), spec.hidden_size);
        for (row, token) in x.rows_mut().zip(tokens) {
            table.weights_of(token as usize, row);
            if let Some(scale) = self.embedding_scale {
                row.iter_mut().for_each(|x| *x *= scale);
            }
        }
        x
    }

    /// Memory of the matrices.
    pub fn bytes(&self) -> usize {
        let layer = |l: &Layer| l.qkv.bytes() + l.output.bytes() + l.gate_up.bytes() + l.down.bytes();
        self.embedding.as_ref().map_or(0, Matrix::bytes)
            + self.head.bytes()
            + self.layers.iter().map(layer).sum::<usize>()
    }
}

/// The parameters not yet taken.
struct Source {
    parameters: BTreeMap<String, Parameter>,
    /// What is added to the weights of norms.
    from: f32,
    storage: Storage,
    draft: bool,
}

impl Source {
    fn new(model: CausalLm, spec: &ModelSpec, storage: Storage, draft: bool) -> Self {
        let from = if spec.norm == NormKind::RmsFromOne { 1.0 } else { 0.0 };
        let mut parameters = BTreeMap::new();
        for_each(&model, "", |parameter| {
            parameters.insert(parameter.path.clone(), parameter);
        });
        Self { parameters, from, storage, draft }
    }

    fn find(&mut self, path: &str) -> Option<Vec<f32>> {
        let parameter = self.parameters.remove(path)?;
        Some(parameter.value.into_data().iter::<f32>().collect())
    }

    fn take(&mut self, path: &str) -> Result<Vec<f32>, String> {
        self.find(path).ok_or_else(|| format!("it has no {path}"))
    }

    /// The factors of a norm, where there is one.
    fn norm(&mut self, path: &str) -> Option<Vec<f32>> {
        let weight = self.find(&format!("{path}.weight"))?;
        Some(weight.into_iter().map(|weight| weight + self.from).collect())
    }

    /// One projection that is several already, or those of the same input one below the other.
    fn stacked(&mut self, whole: &str, parts: &[String], inputs: usize) -> Result<Linear, String> {
        match self.parameters.contains_key(&format!("{whole}.weight")) {
            true => self.projection(&[whole.to_owned()], inputs),
            false => self.projection(parts, inputs),
        }
    }

    /// Projections of the same input, one below the other.
    fn projection(&mut self, paths: &[String], inputs: usize) -> Result<Linear, String> {
        let (mut weights, mut bias) = (vec![], vec![]);
        for path in paths {
            weights.extend(self.take(&format!("{path}.weight"))?);
            // A projection without a bias beside one with it has a bias of 0.
            if let Some(values) = self.find(&format!("{path}.bias")) {
                bias.resize(weights.len() / inputs - values.len(), 0.0);
                bias.extend(values);
            }
        }
        let bias = (!bias.is_empty()).then(|| {
            bias.resize(weights.len() / inputs, 0.0);
            bias
        });
        Ok(self.linear(weights, inputs, bias))
    }

    fn linear(&self, weights: Vec<f32>, inputs: usize, bias: Option<Vec<f32>>) -> Linear {
        let draft = (self.draft && self.storage != Storage::Q8).then(|| Matrix::new(&weights, inputs, Storage::Q8));
        Linear { matrix: Matrix::new(&weights, inputs, self.storage), draft, bias }
    }

    /// Refuses a model with parameters that nothing here uses.
    fn finish(self) -> Result<(), String> {
        match self.parameters.into_keys().next() {
            None => Ok(()),
            Some(path) => Err(format!("it has {path}")),
        }
    }
}
