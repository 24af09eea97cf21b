//! What llama.cpp calls the tensors of a model, and the order in which it stores them.

use super::architecture::Architecture;
use super::order::Order;
use crate::ModelSpec;
use crate::spec::{NormKind, QkvLayout, Rope, RopeScaling};

/// The tensors of a block.
const OF_BLOCK: [(&str, &str); 15] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

/// The tensors outside the blocks.
const OUTSIDE: [(&str, &str); 4] = [
    ("embed_tokens", "token_embd"),
    ("embed_positions", "position_embd"),
    ("norm", "output_norm"),
    ("lm_head", "output"),
];

/// The embedding of tokens.
pub const EMBEDDING: &str = "token_embd.weight";
/// The head, where it is not the embedding.
pub const HEAD: &str = "output.weight";

/// The name of the tensor at a module path.
pub fn name(path: &str) -> Option<String> {
    let (module, kind) = path.rsplit_once('.')?;
    let find = |table: &[(&str, &'static str)], module: &str| {
        table.iter().find(|(ours, _)| *ours == module).map(|(_, theirs)| *theirs)
    };
    if let Some(name) = find(&OUTSIDE, module) {
        return Some(format!("{name}.{kind}"));
    }
    let (layer, module) = module.strip_prefix("layers.")?.split_once('.')?;
    Some(format!("blk.{layer}.{}.{kind}", find(&OF_BLOCK, module)?))
}

/// How the tensor at a module path is ordered.
pub fn order(path: &str, architecture: &Architecture, spec: &ModelSpec) -> Order {
    let module = path.rsplit_once('.').map_or(path, |(module, _)| module);
    if module.ends_with("norm") && spec.norm == NormKind::RmsFromOne {
        return Order::FromOne;
    }
    match module.rsplit('.').next() {
        Some("q_proj") if architecture.pairs => Order::Pairs { heads: spec.heads },
        Some("k_proj") if architecture.pairs => Order::Pairs { heads: spec.kv_heads },
        Some("qkv_proj") if spec.qkv == QkvLayout::PerHead => Order::Stacked { heads: spec.heads },
        _ => Order::AsIs,
    }
}

/// Tensors of numbers that rotary frequencies are divided by.
pub const FREQUENCY_FACTORS: [&str; 3] = ["rope_freqs.weight", LONG_FACTORS, SHORT_FACTORS];
/// Those of LongRoPE.
pub const LONG_FACTORS: &str = "rope_factors_long.weight";
/// Those of LongRoPE within the original context.
pub const SHORT_FACTORS: &str = "rope_factors_short.weight";

/// What rotary frequencies are divided by, `[dim / 2]` each, where a number does not say it.
pub fn frequency_factors(spec: &ModelSpec) -> Vec<(&'static str, Vec<f32>)> {
    let narrow = |factors: &[f64]| factors.iter().map(|factor| *factor as f32).collect();
    match spec.ropes.first() {
        Some(rope) if matches!(rope.scaling, RopeScaling::Llama3 { .. }) => {
            vec![(FREQUENCY_FACTORS[0], scaled_by(rope))]
        }
        Some(Rope { scaling: RopeScaling::LongRope { factors, long_factors, .. }, .. }) => {
            vec![(LONG_FACTORS, narrow(long_factors)), (SHORT_FACTORS, narrow(factors))]
        }
        _ => vec![],
    }
}

/// What the scaling of a rotary embedding divides each of its frequencies by.
pub fn scaled_by(rope: &Rope) -> Vec<f32> {
    let plain = Rope { scaling: RopeScaling::Default, ..rope.clone() };
    let pairs = plain.inverse_frequencies().into_iter().zip(rope.inverse_frequencies());
    pairs.map(|(plain, scaled)| plain / scaled).collect()
}
