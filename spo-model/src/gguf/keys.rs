//! The keys that describe a model, each with its name in the file, its name in `config.json`, and how to tell it from a
//! [`ModelSpec`]: files are written and read by the same table.

use super::architecture::{Architecture, window};
use crate::ModelSpec;
use crate::spec::{NormKind, Rope, RopeScaling};

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number.
    U32(u32),
    /// A large whole number.
    U64(u64),
    /// A number.
    F32(f32),
    /// A switch.
    Bool(bool),
    /// Text.
    String(String),
    /// Texts.
    Strings(Vec<String>),
    /// Whole numbers.
    Integers(Vec<i32>),
    /// Numbers.
    Numbers(Vec<f32>),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::U32(number) => number.fmt(f),
            Self::U64(number) => number.fmt(f),
            Self::F32(number) => number.fmt(f),
            Self::Bool(on) => on.fmt(f),
            Self::String(text) => text.fmt(f),
            Self::Strings(_) | Self::Integers(_) | Self::Numbers(_) => f.write_str("a list"),
        }
    }
}

/// A key that says one thing of a model.
pub struct Key {
    /// Its name in the file, behind the architecture's.
    pub name: &'static str,
    /// What Llama's `config.json` calls it; empty for what follows from other keys there.
    pub config: &'static str,
    /// The architectures that have it; empty for all.
    pub of: &'static [&'static str],
    /// Its value, where a model has one.
    pub value: fn(&Architecture, &ModelSpec) -> Option<Value>,
}

/// Rotated channels of a head.
pub const ROTATED: &str = "rope.dimension_count";
/// The most recent positions that a token sees.
pub const WINDOW: &str = "attention.sliding_window";
/// Positions of the longest text.
pub const CONTEXT: &str = "context_length";

/// All keys of the architecture, but for [`SCALING`].
pub const KEYS: &[Key] = &[
    Key { name: "block_count", config: "num_hidden_layers", of: &[], value: |_, spec| whole(spec.layers.len()) },
    Key { name: CONTEXT, config: "max_position_embeddings", of: &[], value: |of, spec| whole(context(of, spec)) },
    Key { name: "embedding_length", config: "hidden_size", of: &[], value: |_, spec| whole(spec.hidden_size) },
    Key {
        name: "feed_forward_length",
        config: "intermediate_size",
        of: &[],
        value: |_, spec| whole(spec.intermediate_size),
    },
    Key { name: "attention.head_count", config: "num_attention_heads", of: &[], value: |_, spec| whole(spec.heads) },
    Key {
        name: "attention.head_count_kv",
        config: "num_key_value_heads",
        of: &[],
        value: |_, spec| whole(spec.kv_heads),
    },
    Key {
        name: "attention.layer_norm_epsilon",
        config: "layer_norm_eps",
        of: &[],
        value: |_, spec| real(spec.norm_eps).filter(|_| is_layer(spec.norm)),
    },
    Key {
        name: "attention.layer_norm_rms_epsilon",
        config: "rms_norm_eps",
        of: &[],
        value: |_, spec| real(spec.norm_eps).filter(|_| !is_layer(spec.norm)),
    },
    Key { name: "attention.key_length", config: "head_dim", of: &[], value: |_, spec| whole(spec.head_dim) },
    Key { name: "attention.value_length", config: "", of: &[], value: |_, spec| whole(spec.head_dim) },
    Key { name: "vocab_size", config: "vocab_size", of: &[], value: |_, spec| whole(spec.vocab_size) },
    Key {
        name: "use_parallel_residual",
        config: "use_parallel_residual",
        of: &[],
        value: |of, spec| (of.name == "gptneox").then_some(Value::Bool(spec.parallel)),
    },
    Key {
        name: WINDOW,
        config: "sliding_window",
        of: &[],
        value: |of, spec| of.windows_but_every.and(window(spec)).and_then(whole),
    },
    Key {
        name: "attn_logit_softcapping",
        config: "attn_logit_softcapping",
        of: &[],
        value: |_, spec| spec.layers.first()?.attention.softcap.and_then(real),
    },
    Key {
        name: "final_logit_softcapping",
        config: "final_logit_softcapping",
        of: &[],
        value: |_, spec| spec.logit_softcap.and_then(real),
    },
    Key {
        name: "attention.scale",
        config: "attention_multiplier",
        of: GRANITE,
        value: |_, spec| real(spec.layers.first()?.attention.scale),
    },
    Key {
        name: "embedding_scale",
        config: "embedding_multiplier",
        of: GRANITE,
        value: |_, spec| real(spec.embedding_scale.unwrap_or(1.0)),
    },
    Key {
        name: "residual_scale",
        config: "residual_multiplier",
        of: GRANITE,
        value: |_, spec| real(spec.residual_scale),
    },
    Key {
        name: "logit_scale",
        config: "logit_scale",
        of: &["granite", "granitemoe", "cohere2"],
        // Granite divides by it.
        value: |of, spec| real(if of.scaled { spec.logit_scale.recip() } else { spec.logit_scale }),
    },
    Key {
        name: "expert_count",
        config: "num_experts",
        of: MIXTURES,
        value: |of, spec| whole(spec.experts.as_ref().filter(|_| of.mixture.is_some())?.count),
    },
    Key {
        name: "expert_used_count",
        config: "num_experts_per_tok",
        of: MIXTURES,
        value: |of, spec| whole(spec.experts.as_ref().filter(|_| of.mixture.is_some())?.active),
    },
    Key {
        name: "expert_feed_forward_length",
        config: "moe_intermediate_size",
        of: &["qwen2moe", "qwen3moe"],
        value: |_, spec| whole(spec.experts.as_ref()?.intermediate_size),
    },
    Key {
        name: "expert_shared_feed_forward_length",
        config: "shared_expert_intermediate_size",
        of: &["qwen2moe"],
        value: |_, spec| whole(spec.experts.as_ref()?.shared?),
    },
    Key { name: ROTATED, config: "", of: &[], value: |of, spec| whole(of.ropes(spec).0?.dim) },
    Key { name: "rope.freq_base", config: "rope_theta", of: &[], value: |of, spec| real(of.ropes(spec).0?.theta) },
    Key {
        name: "rope.freq_base_swa",
        config: "rope_local_base_freq",
        of: &[],
        value: |of, spec| real(of.ropes(spec).1?.theta).filter(|_| of.name == "gemma3"),
    },
];

/// Architectures with factors of their own.
const GRANITE: &[&str] = &["granite", "granitemoe"];
/// Those that are, or may be, mixtures of experts.
const MIXTURES: &[&str] = &["llama", "qwen2moe", "qwen3moe", "olmoe", "granitemoe"];

impl Key {
    /// Whether files of an architecture have it.
    pub fn is_of(&self, architecture: &Architecture) -> bool {
        self.of.is_empty() || self.of.contains(&architecture.name)
    }
}

fn is_layer(norm: NormKind) -> bool {
    matches!(norm, NormKind::Layer | NormKind::LayerUnbiased)
}

/// Keys of a rotary scaling.
pub const SCALING: [&str; 4] = [SCALING_TYPE, FACTOR, ORIGINAL_CONTEXT, ATTENTION_FACTOR];
/// `none`, `linear` or `yarn`.
pub const SCALING_TYPE: &str = "rope.scaling.type";
/// What positions are divided by.
pub const FACTOR: &str = "rope.scaling.factor";
/// The context before it was scaled.
pub const ORIGINAL_CONTEXT: &str = "rope.scaling.original_context_length";
/// LongRoPE's factor on cosines and sines.
pub const ATTENTION_FACTOR: &str = "rope.scaling.attn_factor";

fn whole(number: usize) -> Option<Value> {
    Some(Value::U32(number as u32))
}

fn real(number: f64) -> Option<Value> {
    Some(Value::F32(number as f32))
}

/// What the file may call the context: it ends where a window begins to matter that readers do not know of.
fn context(architecture: &Architecture, spec: &ModelSpec) -> usize {
    let context = match architecture.ropes(spec).0.map(|rope| &rope.scaling) {
        Some(RopeScaling::LongRope { long_context, .. }) => *long_context,
        _ => spec.context,
    };
    let end = window(spec).filter(|_| architecture.windows_but_every.is_none());
    end.map_or(context, |end| end.min(context))
}

/// The keys that describe the model, with their values.
pub fn metadata(architecture: &Architecture, spec: &ModelSpec) -> Vec<(String, Value)> {
    let key = |key: &str| format!("{}.{key}", architecture.name);
    let mut all: Vec<(String, Value)> = vec![
        ("general.architecture".into(), Value::String(architecture.name.into())),
        ("general.type".into(), Value::String("model".into())),
        ("general.parameter_count".into(), Value::U64(spec.parameters() as u64)),
        ("general.quantization_version".into(), Value::U32(2)),
    ];
    let own = KEYS.iter().filter(|of| of.is_of(architecture));
    all.extend(own.filter_map(|of| Some((key(of.name), (of.value)(architecture, spec)?))));
    let scaling = architecture.ropes(spec).0.map(scaling).unwrap_or_default();
    all.extend(scaling.into_iter().map(|(name, value)| (key(name), value)));
    all
}

/// The keys of a rotary scaling. Factors of each frequency are tensors.
pub fn scaling(rope: &Rope) -> Vec<(&'static str, Value)> {
    let kind = |kind: &str| (SCALING_TYPE, Value::String(kind.into()));
    let factor = |factor: f64| (FACTOR, Value::F32(factor as f32));
    let original = |context: f64| (ORIGINAL_CONTEXT, Value::U32(context as u32));
    match rope.scaling {
        RopeScaling::Default | RopeScaling::Llama3 { .. } | RopeScaling::Proportional { .. } => vec![],
        RopeScaling::Linear { factor: by } => vec![kind("linear"), factor(by)],
        RopeScaling::Yarn { factor: by, original_context, .. } => {
            vec![kind("yarn"), factor(by), original(original_context)]
        }
        RopeScaling::LongRope { attention_factor, original_context, .. } => {
            vec![original(original_context), (ATTENTION_FACTOR, Value::F32(attention_factor as f32))]
        }
    }
}
