//! What training takes of the device's memory, as a formula over a model's shape: bytes, by what they are for.
//!
//! Counted is what lives at once at the top of a step: in the backward pass, when the tapes of all blocks are kept, or their
//! inputs and the tape of one where blocks are recomputed. What the tapes keep is counted operation by operation, for the
//! fused operations of the CPU in f32 and for burn's elsewhere.

use crate::decoder::kept::Kept;
use crate::load::{Storage, WeightSource};
use crate::lora::{Condition, LoraSpec, projection_names};
use crate::parameters::is_constant;
use crate::quant::packed::StoredBlocks;
use crate::spec::{Activation, ExpertsSpec, MlpKind, NormKind, NormPlacement, QkNorm};
use crate::{CausalLm, ModelError, ModelSpec, device};
use burn::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a chunk of logits, and of gradients that the head keeps; see `spo_core::logprob`.
const HEAD_CHUNK: usize = 64 << 20;
const HEAD_KEPT: usize = 128 << 20;

/// How a model is kept and trained.
#[derive(Debug, Clone)]
pub struct Training<'a> {
    /// Type of the weights.
    pub storage: Storage,
    /// In which blocks the projections are kept, if they are.
    pub blocks: Option<Kept>,
    /// The projections that the file stores in blocks, by module path.
    pub stored: Option<&'a BTreeMap<String, StoredBlocks>>,
    /// Adapters; `None` trains all weights.
    pub lora: Option<&'a LoraSpec>,
    /// Ranks of the adapters that lie frozen below the trained one.
    pub frozen_ranks: usize,
    /// Whether the operations are the CPU's fused ones.
    pub fused: bool,
}

/// The largest micro-batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Batch {
    /// Tokens that run through the blocks.
    pub tokens: usize,
    /// Tokens that are predicted.
    pub rows: usize,
    /// Values of padded scores `[groups, longest, longest]`; 0 on the CPU, which has none.
    pub scores: usize,
}

/// Bytes that stay from step to step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// The model's own weights.
    pub weights: usize,
    /// Adapters, frozen ones too.
    pub adapters: usize,
    /// Sums of the gradients, f32.
    pub gradients: usize,
    /// Moments, and f32 weights where they are stored in 16 bits.
    pub optimizer: usize,
}

/// Module path and shape of every parameter of a model without adapters.
pub fn parameter_shapes(spec: &ModelSpec) -> Vec<(String, Vec<usize>)> {
    struct Shapes(Vec<(String, Vec<usize>)>);
    impl WeightSource for Shapes {
        fn tensor<const D: usize>(&mut self, path: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
            self.0.push((path.into(), shape.to_vec()));
            Ok(Tensor::zeros([1; D], &device::cpu()))
        }
    }
    let mut shapes = Shapes(vec![]);
    CausalLm::load(spec, &mut shapes).expect("this source has every tensor");
    shapes.0
}

impl Training<'_> {
    /// What stays in memory while a model of this spec is trained.
    ///
    /// # Errors
    /// A target that the model does not have.
    pub fn state(&self, spec: &ModelSpec) -> Result<State, ModelError> {
        let (projections, targets) = (BTreeSet::from_iter(projection_names(spec)), self.targets(spec)?);
        let (mut state, mut trained, stored) = (State::default(), 0, self.storage.bytes());
        for (path, shape) in parameter_shapes(spec) {
            let elements = shape.iter().product::<usize>();
            let module = path.trim_end_matches(".weight");
            let in_blocks = match (self.blocks, shape.as_slice()) {
                (Some(Kept::Quantised(bits)), &[out, inputs]) if projections.contains(module) => {
                    Some(bits.bytes([out, inputs]))
                }
                (Some(Kept::AsStored), _) => {
                    let stored = self.stored.and_then(|stored| stored.get(module));
                    stored.and_then(|of| if self.fused { Some(of.bytes) } else { of.on_card })
                }
                _ => None,
            };
            state.weights += in_blocks.unwrap_or(elements * stored);
            let Some(lora) = self.lora else {
                trained += if is_constant(&path) { 0 } else { elements };
                continue;
            };
            if lora.saved.contains(&path) {
                trained += elements;
            }
            if let &[out, inputs] = shape.as_slice()
                && targets.contains(module)
            {
                let magnitude = if lora.dora { out } else { 0 };
                let core = lora.front.as_ref().map_or(0, |front| front.core_elements(lora.rank));
                let own = lora.total_rank() * (out + inputs) + magnitude + core;
                trained += own;
                state.adapters += (own + self.frozen_ranks * (out + inputs)) * stored + 4 * magnitude;
            }
        }
        let master = if self.storage == Storage::F32 { 0 } else { 4 };
        state.gradients = 4 * trained;
        state.optimizer = (8 + master) * trained;
        Ok(state)
    }

    /// Whether the gradients and the moments of the embedding table are those of its touched rows alone: with the
    /// CPU's fused operations, where the head is not the same table.
    pub fn embedding_by_rows(&self, spec: &ModelSpec) -> bool {
        let trained = self.lora.is_none_or(|lora| lora.saved.contains("embed_tokens.weight"));
        self.fused && !spec.tied && trained
    }

    /// What a zeroth-order optimiser keeps beside the weights, and the model it asks the loss of: frames of this rank of
    /// each matrix, or without a rank a copy of all that is trained; with a momentum the sums of estimates.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    pub fn zeroth_order(&self, spec: &ModelSpec, rank: Option<usize>, momentum: bool) -> Result<usize, ModelError> {
        let trained = self.state(spec)?.gradients / 4;
        let Some(rank) = rank else {
            return Ok(trained * (self.storage.bytes() + if momentum { 4 } else { 0 }));
        };
        let (projections, targets) = (BTreeSet::from_iter(projection_names(spec)), self.targets(spec)?);
        let mut frames = 0;
        for (path, shape) in parameter_shapes(spec) {
            let &[out, inputs] = shape.as_slice() else { continue };
            let module = path.trim_end_matches(".weight");
            frames += match self.lora {
                // Both frames, and one of them times the core.
                None if projections.contains(module) => rank.min(out).min(inputs) * (2 * out + inputs),
                // Both factors are near squares.
                Some(lora) if targets.contains(module) => {
                    let sides = [out, inputs].map(|side| lora.total_rank() * side).map(|elements| 2 * elements.isqrt());
                    rank * sides.iter().sum::<usize>()
                }
                _ => 0,
            };
        }
        let copy = if self.lora.is_some() { trained * self.storage.bytes() } else { 0 };
        Ok(4 * frames + copy)
    }

    /// What the decoder holds of a micro-batch that is only scored: one block's values.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    pub fn scored_activations(&self, spec: &ModelSpec, batch: Batch) -> Result<usize, ModelError> {
        let block = self.kept(spec, &self.targets(spec)?).into_iter().max().unwrap_or(0);
        let own = spec.layers.len() * spec.layer_inputs.unwrap_or(0);
        let values = batch.tokens * (block + spec.hidden_size + own) + batch.rows * spec.hidden_size;
        Ok(self.storage.bytes() * values + 4 * spec.heads * batch.scores)
    }

    fn targets(&self, spec: &ModelSpec) -> Result<BTreeSet<String>, ModelError> {
        Ok(BTreeSet::from_iter(self.lora.map(|lora| lora.targets.select(spec)).transpose()?.unwrap_or_default()))
    }

    /// What the decoder keeps of a micro-batch, with the tapes of all blocks or with blocks `recomputed`.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    pub fn activations(&self, spec: &ModelSpec, batch: Batch, recomputed: bool) -> Result<usize, ModelError> {
        let (hidden, layers) = (spec.hidden_size, spec.layers.len());
        let per_layer = self.kept(spec, &self.targets(spec)?);
        let tapes: usize = match recomputed {
            true => layers * hidden + per_layer.iter().max().copied().unwrap_or(0),
            false => per_layer.iter().sum(),
        };
        // In the backward pass through one block: gradients of its feed-forward part and of the residual stream.
        let inner = match &spec.experts {
            Some(of) => spec.intermediate_size.max(of.active * of.intermediate_size + of.shared.unwrap_or(0)),
            None => spec.intermediate_size,
        };
        let gradients = 3 * inner + 4 * hidden;
        // The blocks' own inputs; where tables are trained their gradients, and the embedding that they are made of.
        let own = spec.layer_inputs.map_or(0, |width| match self.lora {
            None => 2 * layers * width + hidden,
            Some(_) => layers * width,
        });
        let block_gradients = match self.lora {
            None => (spec.parameters() - spec.table_parameters()) / layers.max(1) * 4,
            Some(_) => 0,
        };
        let rows = 4 * batch.rows * hidden;
        let scores = 3 * spec.heads * batch.scores;
        Ok(self.storage.bytes() * (batch.tokens * (tapes + hidden + gradients + own) + rows)
            + 4 * scores
            + block_gradients)
    }

    /// Values per token that the tape of each block keeps, its output among them.
    fn kept(&self, spec: &ModelSpec, targets: &BTreeSet<String>) -> Vec<usize> {
        let (hidden, q, kv) = (spec.hidden_size, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let (placement_before, placement_after) = spec.norm_placement.before_and_after();
        // What a norm keeps beside its input and its output.
        let norm = |width: usize| match spec.norm {
            NormKind::Layer | NormKind::LayerUnbiased if self.lora.is_none() => 2 * width,
            NormKind::Layer | NormKind::LayerUnbiased => width,
            _ if self.fused => 0,
            _ => 2 * width,
        };
        let of_layer = |layer: usize| {
            let mut kept = hidden + q + 2 * kv + q + self.kept_by_feed_forward(spec, layer);
            if spec.norm_placement == NormPlacement::Shared {
                // The normed input, which either tape has of its own.
                kept += 2 * (hidden + norm(hidden));
            } else if placement_before {
                // The normed inputs of both parts, and the sum between them.
                kept += 2 * (hidden + norm(hidden)) + if spec.parallel { 0 } else { hidden };
            } else {
                kept += hidden;
            }
            if placement_after {
                kept += 2 * (hidden + norm(hidden));
            }
            if spec.qk_norm != QkNorm::None {
                kept += q + kv + norm(q + kv);
            }
            if spec.qk_norm == QkNorm::PerHeadAndValues {
                kept += kv + norm(kv);
            }
            if let Some(width) = spec.layer_inputs {
                // The gate, its activation and the product; what is added, its norm, and the sum.
                kept += 7 * width + 3 * hidden + norm(hidden);
            }
            if spec.layer_scalars {
                kept += hidden;
            }
            let prefix = format!("layers.{layer}.");
            let adapters = targets.iter().filter(|path| path.starts_with(&prefix));
            // A token goes through some of the experts.
            let (of_experts, others): (Vec<_>, Vec<_>) = adapters.partition(|path| path.contains(".experts."));
            let sum = |paths: Vec<&String>| paths.iter().map(|path| self.kept_by_adapter(spec, path)).sum::<usize>();
            let of_experts = spec.experts.as_ref().map_or(0, |e| sum(of_experts) * e.active / e.count);
            kept + sum(others) + of_experts
        };
        (0..spec.layers.len()).map(of_layer).collect()
    }

    /// Values per token that the tape of a feed-forward block keeps.
    fn kept_by_feed_forward(&self, spec: &ModelSpec, layer: usize) -> usize {
        let one = |kind: MlpKind, inner: usize| {
            let activation = match (spec.activation, self.fused) {
                (Activation::Silu, true) => 0,
                (Activation::Silu, false) => 2 * inner,
                (Activation::Gelu, _) => inner,
                (Activation::GeluTanh, _) => 4 * inner,
                (Activation::Xielu, _) => 6 * inner,
                (Activation::Clamped { .. }, _) => 5 * inner,
            };
            activation + if kind == MlpKind::Plain { 2 * inner } else { 3 * inner }
        };
        match spec.experts.as_ref().filter(|_| spec.layers[layer].experts) {
            None => one(spec.mlp, spec.intermediate_size),
            Some(experts) => {
                // Of each expert its input, its output, in the order of the experts and in that of the tokens.
                let of_expert = one(experts.mlp, experts.intermediate_size) + 4 * spec.hidden_size;
                let shared = experts.shared.map_or(0, |inner| one(MlpKind::Gated, inner) + 2 * spec.hidden_size);
                3 * experts.count + experts.active * of_expert + shared
            }
        }
    }

    /// What the adapter of a layer keeps per token: between its factors, for a magnitude, for dropout.
    fn kept_by_adapter(&self, spec: &ModelSpec, path: &str) -> usize {
        let Some(lora) = self.lora else { return 0 };
        let inner = match &spec.experts {
            Some(experts) if path.contains(".experts.") => experts.intermediate_size,
            Some(ExpertsSpec { shared: Some(inner), .. }) if path.contains(".shared_expert.") => *inner,
            _ => spec.intermediate_size,
        };
        let hidden = spec.hidden_size;
        let (q, kv) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let [out, inputs] = match path.rsplit('.').next().unwrap_or_default() {
            "q_proj" => [q, hidden],
            "k_proj" | "v_proj" => [kv, hidden],
            "qkv_proj" => [q + 2 * kv, hidden],
            "o_proj" => [hidden, q],
            "gate_up_proj" => [2 * inner, hidden],
            "down_proj" => [hidden, inner],
            "gate" => [spec.layer_inputs.unwrap_or(0), hidden],
            "projection" => [hidden, spec.layer_inputs.unwrap_or(0)],
            _ => [inner, hidden],
        };
        let magnitude = if lora.dora { out } else { 0 };
        let dropout = if lora.dropout > 0.0 { 2 * inputs } else { 0 };
        // A core's input and output stand beside them, and where contexts weigh its matrices what each of them gives, twice.
        let between = if lora.front.is_some() { 4 } else { 2 };
        let mixed = match lora.front.as_ref().map(|front| &front.condition) {
            Some(Condition::Contexts(matrices)) => 2 * matrices * lora.rank,
            _ => 0,
        };
        between * lora.total_rank() + mixed + magnitude + dropout
    }

    /// Logits and their gradients, in chunks of `chunk_rows` (0: automatic).
    pub fn head(&self, spec: &ModelSpec, batch: Batch, chunk_rows: usize) -> usize {
        let row = 4 * spec.vocab_size;
        let chunk = if chunk_rows == 0 { (HEAD_CHUNK / row).max(1) } else { chunk_rows };
        let trained = match self.lora {
            None => true,
            Some(lora) => lora.saved.contains(if spec.tied { "embed_tokens.weight" } else { "lm_head.weight" }),
        };
        let one = batch.rows.min(chunk) * row;
        // Burn's log-softmax makes more than one of them.
        let one = if self.fused { one } else { 3 * one };
        if trained { one + HEAD_KEPT.min(batch.rows.saturating_sub(chunk) * row) } else { one }
    }
}

/// What generation on the CPU takes beside the model: weights laid out anew in f32, keys and values of `sequences` that
/// are `tokens` long.
pub fn generation(spec: &ModelSpec, sequences: usize, tokens: usize) -> usize {
    let cache = 2 * spec.kv_heads * spec.head_dim * spec.layers.len() * sequences * tokens;
    4 * (spec.parameters() + cache)
}

/// Logits of so many rows while they are scored, without gradients.
pub fn scoring_head(spec: &ModelSpec, rows: usize) -> usize {
    HEAD_CHUNK.min(4 * spec.vocab_size * rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::blocks::BlockBits;
    use crate::lora::Targets;
    use crate::parameters;

    fn spec(more: &str) -> ModelSpec {
        let text = format!(
            r#"{{"model_type": "llama", "vocab_size": 50, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 64{more}}}"#
        );
        ModelSpec::from_json(&text).expect("a whole configuration")
    }

    #[test]
    fn the_state_is_that_of_a_model() {
        let spec = spec("");
        let lora = LoraSpec {
            dora: true,
            targets: Targets::Names(vec!["q_proj".into(), "down_proj".into()]),
            saved: crate::lora::SavedModules::new(&["norm".into()], &spec).expect("it has one"),
            ..LoraSpec::new(3, 6.0)
        };
        let model = CausalLm::random(&spec, 0, &device::cpu());
        let plain =
            Training { storage: Storage::F32, blocks: None, stored: None, lora: None, frozen_ranks: 0, fused: true };
        let state = plain.state(&spec).expect("no targets");
        let weights = 4 * parameters::count(&model, |_| true);
        assert_eq!((state.weights, state.adapters), (weights, 0));
        assert_eq!((state.gradients, state.optimizer), (weights, 2 * weights));

        let adapted = Training { storage: Storage::Bf16, lora: Some(&lora), ..plain };
        let state = adapted.state(&spec).expect("it has the targets");
        let model = model.with_lora(&lora, 0).expect("it has the targets");
        let own = parameters::count(&model, crate::lora::is_adapter);
        let magnitudes = parameters::count(&model, |path| path.ends_with("magnitude"));
        assert_eq!(state.adapters, 2 * own + 4 * magnitudes);
        let trained = own + parameters::count(&model, |path| lora.saved.contains(path));
        assert_eq!((state.gradients, state.optimizer), (4 * trained, 12 * trained));
        let four = Some(Kept::Quantised(BlockBits::Four));
        let quantised = Training { blocks: four, ..adapted.clone() }.state(&spec).expect("as before");
        assert!(quantised.weights < state.weights);
        let of_file = StoredBlocks { bytes: 1000, on_card: Some(1200), kind: "Q4_0" };
        let stored = BTreeMap::from([("layers.1.mlp.up_proj".to_owned(), of_file)]);
        let kept = Training { blocks: Some(Kept::AsStored), stored: Some(&stored), ..adapted };
        for (fused, bytes) in [(true, 1000), (false, 1200)] {
            let kept = Training { fused, ..kept.clone() }.state(&spec).expect("as before");
            assert_eq!(state.weights - kept.weights, 2 * 96 * 64 - bytes);
        }
    }

    #[test]
    fn recomputing_keeps_one_block_and_the_inputs() {
        let (spec, batch) = (spec(""), Batch { tokens: 100, rows: 30, scores: 0 });
        let plain =
            Training { storage: Storage::F32, blocks: None, stored: None, lora: None, frozen_ranks: 0, fused: true };
        let [kept, recomputed] = [false, true].map(|r| plain.activations(&spec, batch, r).expect("no targets"));
        // Two blocks keep 4 h + 2 q + 2 kv + 3 inner values a token each, output included.
        let block = 4 * 64 + 2 * 64 + 2 * 32 + 3 * 96;
        assert_eq!(kept - recomputed, 4 * 100 * (block - 2 * 64));
    }

    #[test]
    fn the_head_is_bounded_by_its_chunks() {
        let (spec, batch) = (spec(""), Batch { tokens: 100, rows: 30, scores: 0 });
        let plain =
            Training { storage: Storage::F32, blocks: None, stored: None, lora: None, frozen_ranks: 0, fused: true };
        assert_eq!(plain.head(&spec, batch, 0), 30 * 50 * 4);
        assert_eq!(plain.head(&spec, batch, 10), 30 * 50 * 4);
        let many = Batch { rows: 10_000_000, ..batch };
        assert!(plain.head(&spec, many, 0) <= HEAD_CHUNK + HEAD_KEPT);
    }
}
