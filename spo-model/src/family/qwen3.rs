//! Qwen 3: Llama with RMS norms on the queries and keys of each head.

use super::{Config, Family, qwen2::qwen_windows};
use crate::spec::QkNorm;
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "qwen3", about: "Qwen 3, dense", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let bias = config.flag_or("attention_bias", false)?;
    let mut spec = ModelSpec {
        qkv_bias: bias,
        output_bias: bias,
        qk_norm: QkNorm::PerHead,
        ..config.llama_like("qwen3", Some(128))?
    };
    qwen_windows(config, &mut spec)?;
    Ok(spec)
}
