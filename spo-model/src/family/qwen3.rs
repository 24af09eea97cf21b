//! Qwen 3: Llama with RMS norms on the queries and keys of each head.

use super::{Config, Family};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "qwen3", about: "Qwen 3, dense", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let bias = config.flag_or("attention_bias", false)?;
    let mut spec = ModelSpec {
        qkv_bias: bias,
        output_bias: bias,
        qk_norm: true,
        head_dim: config.count_or("head_dim", 128)?,
        ..config.llama_like("qwen3")?
    };
    config.sliding_window(&mut spec)?;
    Ok(spec)
}
