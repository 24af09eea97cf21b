//! What llama.cpp calls a family, its numbers and its tensors.

use super::encode::Encoding;
use super::write::{Entry, Value};
use super::{GgufType, unsupported};
use crate::spec::{Activation, Rope, RopeScaling};
use crate::{ModelError, ModelSpec};

/// A family in llama.cpp's terms.
#[derive(Debug, Clone, Copy)]
pub struct Architecture {
    name: &'static str,
    /// Queries and keys are rotated in neighbouring pairs, not in halves.
    permuted: bool,
}

/// The tensors of a block and what they are called.
const BLOCK_TENSORS: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

impl Architecture {
    /// That of a model.
    pub fn of(spec: &ModelSpec) -> Result<Self, ModelError> {
        let (name, permuted) = match spec.family {
            "llama" | "mistral" => ("llama", true),
            "qwen2" => ("qwen2", false),
            "qwen3" => ("qwen3", false),
            other => {
                return Err(unsupported(&format!("the family {other}; llama, mistral, qwen2 and qwen3 are written")));
            }
        };
        let rope = single_rope(spec)?;
        if permuted && rope.dim != spec.head_dim {
            let (dim, all) = (rope.dim, spec.head_dim);
            return Err(unsupported(&format!("a rotary embedding of {dim} of {all} channels for {}", spec.family)));
        }
        if spec.activation != Activation::Silu {
            return Err(unsupported(&format!("the activation {:?} for {}", spec.activation, spec.family)));
        }
        Ok(Self { name, permuted })
    }

    /// The keys that describe the model. Its context ends where a sliding window would begin to matter.
    pub fn metadata(self, spec: &ModelSpec, name: &str, dtype: GgufType) -> Result<Vec<(String, Value)>, ModelError> {
        let key = |key: &str| format!("{}.{key}", self.name);
        let rope = single_rope(spec)?;
        let number = |n: usize| Value::U32(n as u32);
        let window = spec.layers.iter().filter_map(|layer| layer.attention.window).min();
        let mut all: Vec<(String, Value)> = vec![
            ("general.architecture".into(), Value::String(self.name.into())),
            ("general.type".into(), Value::String("model".into())),
            ("general.name".into(), Value::String(name.into())),
            ("general.parameter_count".into(), Value::U64(spec.parameters() as u64)),
            ("general.file_type".into(), Value::U32(dtype.file_type())),
            ("general.quantization_version".into(), Value::U32(2)),
            (key("block_count"), number(spec.layers.len())),
            (key("context_length"), number(window.map_or(spec.context, |window| window.min(spec.context)))),
            (key("embedding_length"), number(spec.hidden_size)),
            (key("feed_forward_length"), number(spec.intermediate_size)),
            (key("attention.head_count"), number(spec.heads)),
            (key("attention.head_count_kv"), number(spec.kv_heads)),
            (key("attention.layer_norm_rms_epsilon"), Value::F32(spec.norm_eps as f32)),
            (key("attention.key_length"), number(spec.head_dim)),
            (key("attention.value_length"), number(spec.head_dim)),
            (key("vocab_size"), number(spec.vocab_size)),
            (key("rope.dimension_count"), number(rope.dim)),
            (key("rope.freq_base"), Value::F32(rope.theta as f32)),
        ];
        let mut scaled = |kind: &str, factor: f64| {
            all.push((key("rope.scaling.type"), Value::String(kind.into())));
            all.push((key("rope.scaling.factor"), Value::F32(factor as f32)));
        };
        match rope.scaling {
            // Llama 3's factors are a tensor.
            RopeScaling::Default | RopeScaling::Llama3 { .. } => {}
            RopeScaling::Linear { factor } => scaled("linear", factor),
            RopeScaling::Yarn { factor, fast, slow, truncate, original_context, attention_factor } => {
                // The file has no place for these: readers take the paper's values.
                if (fast, slow, truncate) != (32.0, 1.0, true)
                    || (attention_factor - 0.1 * factor.ln() - 1.0).abs() > 1e-6
                {
                    return Err(unsupported("a YaRN scaling with other values than the paper's"));
                }
                scaled("yarn", factor);
                all.push((key("rope.scaling.original_context_length"), number(original_context as usize)));
            }
            RopeScaling::LongRope { .. } => return Err(unsupported("the rotary scaling longrope")),
        }
        Ok(all)
    }

    /// What Llama 3's rotary frequencies are divided by, `[dim / 2]`.
    pub fn frequency_factors(self, spec: &ModelSpec) -> Option<Entry> {
        let rope = spec.ropes.first()?;
        let RopeScaling::Llama3 { .. } = rope.scaling else { return None };
        let plain = Rope { scaling: RopeScaling::Default, ..rope.clone() };
        let pairs = plain.inverse_frequencies().into_iter().zip(rope.inverse_frequencies());
        let factors = pairs.map(|(plain, scaled)| plain / scaled).collect();
        Some(Entry::values("rope_freqs.weight", factors, Encoding::F32))
    }

    /// The name of the tensor at a module path.
    pub fn tensor_name(self, path: &str) -> Option<String> {
        let (module, kind) = path.rsplit_once('.')?;
        let name = match module {
            "embed_tokens" => "token_embd".into(),
            "norm" => "output_norm".into(),
            "lm_head" => "output".into(),
            _ => {
                let (layer, module) = module.strip_prefix("layers.")?.split_once('.')?;
                let (_, name) = BLOCK_TENSORS.iter().find(|(ours, _)| *ours == module)?;
                format!("blk.{layer}.{name}")
            }
        };
        Some(format!("{name}.{kind}"))
    }

    /// The heads of a tensor whose rows are stored in another order, see [`super::encode::interleave`].
    pub fn permuted_heads(self, path: &str, spec: &ModelSpec) -> Option<usize> {
        let heads = match path {
            _ if !self.permuted => return None,
            _ if path.contains("self_attn.q_proj.") => spec.heads,
            _ if path.contains("self_attn.k_proj.") => spec.kv_heads,
            _ => return None,
        };
        Some(heads)
    }
}

/// The one rotary embedding of all blocks.
fn single_rope(spec: &ModelSpec) -> Result<&Rope, ModelError> {
    match spec.ropes.as_slice() {
        [rope] if spec.layers.iter().all(|layer| layer.rope == Some(0)) => Ok(rope),
        _ => Err(unsupported(&format!("{} with a rotary embedding that is not the same in all blocks", spec.family))),
    }
}
