//! The keys that describe a model.

use super::GgufType;
use super::architecture::{Architecture, window};
use super::write::Value;
use crate::ModelSpec;
use crate::spec::{NormKind, Rope, RopeScaling};

/// The keys that describe the model.
pub fn metadata(architecture: &Architecture, spec: &ModelSpec, dtype: GgufType) -> Vec<(String, Value)> {
    let key = |key: &str| format!("{}.{key}", architecture.name);
    let number = |n: usize| Value::U32(n as u32);
    let real = |x: f64| Value::F32(x as f32);
    let (main, local) = architecture.ropes(spec);
    let context = match main.map(|rope| &rope.scaling) {
        Some(RopeScaling::LongRope { long_context, .. }) => *long_context,
        _ => spec.context,
    };
    let end = window(spec).filter(|_| architecture.windows_but_every.is_none());
    let epsilon = match spec.norm {
        NormKind::Layer => "attention.layer_norm_epsilon",
        NormKind::Rms | NormKind::RmsFromOne => "attention.layer_norm_rms_epsilon",
    };
    let mut all: Vec<(String, Value)> = vec![
        ("general.architecture".into(), Value::String(architecture.name.into())),
        ("general.type".into(), Value::String("model".into())),
        ("general.parameter_count".into(), Value::U64(spec.parameters() as u64)),
        ("general.file_type".into(), Value::U32(dtype.file_type())),
        ("general.quantization_version".into(), Value::U32(2)),
        (key("block_count"), number(spec.layers.len())),
        (key("context_length"), number(end.map_or(context, |end| end.min(context)))),
        (key("embedding_length"), number(spec.hidden_size)),
        (key("feed_forward_length"), number(spec.intermediate_size)),
        (key("attention.head_count"), number(spec.heads)),
        (key("attention.head_count_kv"), number(spec.kv_heads)),
        (key(epsilon), real(spec.norm_eps)),
        (key("attention.key_length"), number(spec.head_dim)),
        (key("attention.value_length"), number(spec.head_dim)),
        (key("vocab_size"), number(spec.vocab_size)),
    ];
    let mut add = |name: &str, value: Value| all.push((key(name), value));
    if architecture.name == "gptneox" {
        add("use_parallel_residual", Value::Bool(spec.parallel));
    }
    if let (Some(_), Some(window)) = (architecture.windows_but_every, window(spec)) {
        add("attention.sliding_window", number(window));
    }
    if let Some(cap) = spec.layers.first().and_then(|layer| layer.attention.softcap) {
        add("attn_logit_softcapping", real(cap));
    }
    if let Some(cap) = spec.logit_softcap {
        add("final_logit_softcapping", real(cap));
    }
    if let Some(rope) = main {
        add("rope.dimension_count", number(rope.dim));
        add("rope.freq_base", real(rope.theta));
        scaling(rope).into_iter().for_each(|(name, value)| add(name, value));
    }
    if let Some(rope) = local.filter(|_| architecture.name == "gemma3") {
        add("rope.freq_base_swa", real(rope.theta));
    }
    all
}

/// The keys of a rotary scaling. Factors of each frequency are tensors.
fn scaling(rope: &Rope) -> Vec<(&'static str, Value)> {
    let kind = |kind: &str| ("rope.scaling.type", Value::String(kind.into()));
    let factor = |factor: f64| ("rope.scaling.factor", Value::F32(factor as f32));
    let original = |context: f64| ("rope.scaling.original_context_length", Value::U32(context as u32));
    match rope.scaling {
        RopeScaling::Default | RopeScaling::Llama3 { .. } => vec![],
        RopeScaling::Linear { factor: by } => vec![kind("linear"), factor(by)],
        RopeScaling::Yarn { factor: by, original_context, .. } => {
            vec![kind("yarn"), factor(by), original(original_context)]
        }
        RopeScaling::LongRope { attention_factor, original_context, .. } => {
            vec![original(original_context), ("rope.scaling.attn_factor", Value::F32(attention_factor as f32))]
        }
    }
}
