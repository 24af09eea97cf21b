//! Llama 1, 2 and 3: grouped-query attention, rotary embedding, RMS norms, SwiGLU.

use super::{Config, Family};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "llama", about: "Llama 1 to 3.x", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let bias = config.flag_or("attention_bias", false)?;
    Ok(ModelSpec {
        qkv_bias: bias,
        output_bias: bias,
        mlp_bias: config.flag_or("mlp_bias", false)?,
        ..config.llama_like("llama", None)?
    })
}
