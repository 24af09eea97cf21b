//! Gemma 4, text only: inputs of each block's own, norms of queries, keys and values, five windowed blocks to one
//! without, whose channels turn in part.

use super::rope::RopeDefaults;
use super::{Config, Family};
use crate::layout::Layout;
use crate::spec::{Activation, NormPlacement, QkNorm};
use crate::{ModelError, ModelSpec};
use serde_json::Value;

pub const FAMILY: Family = Family { name: "gemma4_text", about: "Gemma 4, text, blocks of one width", parse };

const LAYOUT: Layout = Layout {
    names: &[
        ("layer_inputs.table", "embed_tokens_per_layer"),
        ("layer_inputs.projection", "per_layer_model_projection"),
        ("layer_inputs.projection_norm", "per_layer_projection_norm"),
        ("layer_input.gate", "per_layer_input_gate"),
        ("layer_input.projection", "per_layer_projection"),
        ("layer_input.post_norm", "post_per_layer_input_norm"),
    ],
    ..Layout::LLAMA
};

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let bias = config.flag_or("attention_bias", false)?;
    let spec = config.llama_like("gemma4_text", Some(256))?;
    check(config, &spec)?;
    let mut spec = ModelSpec {
        norm_placement: NormPlacement::Around,
        qk_norm: QkNorm::PerHeadAndValues,
        embedding_scale: Some((spec.hidden_size as f64).sqrt()),
        activation: config.activation_or("hidden_activation", Activation::GeluTanh)?,
        logit_softcap: config.optional_number("final_logit_softcapping", None)?,
        tied: config.flag_or("tie_word_embeddings", true)?,
        qkv_bias: bias,
        output_bias: bias,
        layer_inputs: match config.get("hidden_size_per_layer_input") {
            Some(Value::Number(width)) if width.as_u64() == Some(0) => None,
            _ => Some(config.count_or("hidden_size_per_layer_input", 256)?),
        },
        layer_scalars: true,
        layout: &LAYOUT,
        ..spec
    };
    let window = config.count_or("sliding_window", 512)?;
    config.windows(&mut spec, window, |index| !(index + 1).is_multiple_of(6))?;
    for layer in &mut spec.layers {
        layer.attention.scale = 1.0;
    }
    // As transformers has it, whatever `layer_types` says.
    if let Some(last) = spec.layers.last_mut() {
        last.attention.window = None;
    }
    config.rope(&mut spec, RopeDefaults { theta: 1_000_000.0, window_theta: Some(10_000.0), partial: 1.0 })?;
    Ok(spec)
}

/// What the blocks of larger Gemma 4 have and this crate has not, by the key that says so.
fn check(config: &Config, spec: &ModelSpec) -> Result<(), ModelError> {
    for (key, unlike) in [
        ("num_kv_shared_layers", "0: blocks that use the keys and values of earlier ones are not built here"),
        ("attention_k_eq_v", "false: values that are the keys are not built here"),
        ("enable_moe_block", "false: experts beside a feed-forward block are not built here"),
    ] {
        if let Some(found) = config.get(key).filter(|found| !matches!(found.as_f64(), Some(0.0)) && *found != false) {
            return Err(config.error(key, &found.to_string(), unlike));
        }
    }
    if config.get("use_bidirectional_attention").is_some_and(|kind| kind == "all") {
        return Err(config.error("use_bidirectional_attention", "all", "null: a causal language model"));
    }
    if !config.has("rope_parameters") {
        return Err(config.error("rope_parameters", "nothing", "a table for each kind of attention"));
    }
    let rows = config.count_or("vocab_size_per_layer_input", 262_144)?;
    if rows != spec.vocab_size && config.get("hidden_size_per_layer_input").is_none_or(|width| *width != 0) {
        let expected = format!("vocab_size = {}", spec.vocab_size);
        return Err(config.error("vocab_size_per_layer_input", &rows.to_string(), &expected));
    }
    one_width(config, spec)
}

/// Every block has heads of one width and as many of them.
fn one_width(config: &Config, spec: &ModelSpec) -> Result<(), ModelError> {
    let expected = "what the other blocks have: blocks of several shapes are not built here";
    let Some(overrides) = config.get("per_layer_config").and_then(Value::as_object) else {
        let global = config.count_or("global_head_dim", 512)?;
        let same = global == spec.head_dim || spec.layers.is_empty();
        return if same { Ok(()) } else { Err(config.error("global_head_dim", &global.to_string(), expected)) };
    };
    for (layer, own) in overrides {
        let differs = |(key, value): &(&String, &Value)| config.get(key) != Some(*value);
        if let Some((key, value)) = own.as_object().into_iter().flatten().find(differs) {
            return Err(config.error(&format!("per_layer_config.{layer}.{key}"), &value.to_string(), expected));
        }
    }
    Ok(())
}
