//! Granite: Llama with factors on embeddings, scores, logits and what each part of a block adds.

use super::{Config, Family};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "granite", about: "Granite 3 and 4, dense", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let spec = granite_like(config, "granite")?;
    Ok(ModelSpec { mlp_bias: config.flag_or("mlp_bias", false)?, ..spec })
}

/// What dense Granite and its mixtures of experts share.
pub fn granite_like(config: &Config, family: &'static str) -> Result<ModelSpec, ModelError> {
    let bias = config.flag_or("attention_bias", false)?;
    let mut spec = ModelSpec {
        qkv_bias: bias,
        output_bias: bias,
        embedding_scale: Some(config.number_or("embedding_multiplier", 1.0)?).filter(|scale| *scale != 1.0),
        logit_scale: config.number_or("logits_scaling", 1.0)?.recip(),
        residual_scale: config.number_or("residual_multiplier", 1.0)?,
        ..config.llama_like(family, None)?
    };
    let scale = config.number_or("attention_multiplier", 1.0)?;
    spec.layers.iter_mut().for_each(|layer| layer.attention.scale = scale);
    Ok(spec)
}
