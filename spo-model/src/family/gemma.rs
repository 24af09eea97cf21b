//! Gemma: embeddings scaled by √hidden, norms around 1, a GELU gate, a tied head.

use super::{Config, Family};
use crate::spec::{Activation, NormKind};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "gemma", about: "Gemma 1", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let mut spec = gemma_like(config, "gemma", "hidden_act")?;
    if config.has("hidden_activation") {
        spec.activation = config.activation_or("hidden_activation", spec.activation)?;
    } else if spec.activation == Activation::Gelu {
        // The first releases say `gelu` and mean the tanh form.
        spec.activation = Activation::GeluTanh;
    }
    Ok(spec)
}

/// What all Gemmas share.
pub fn gemma_like(config: &Config, family: &'static str, activation: &str) -> Result<ModelSpec, ModelError> {
    if config.flag_or("use_bidirectional_attention", false)? {
        return Err(config.error("use_bidirectional_attention", "true", "false: a causal language model"));
    }
    let bias = config.flag_or("attention_bias", false)?;
    let spec = config.llama_like(family, Some(256))?;
    Ok(ModelSpec {
        norm: NormKind::RmsFromOne,
        embedding_scale: Some((spec.hidden_size as f64).sqrt()),
        activation: config.activation_or(activation, Activation::GeluTanh)?,
        tied: config.flag_or("tie_word_embeddings", true)?,
        qkv_bias: bias,
        output_bias: bias,
        ..spec
    })
}
