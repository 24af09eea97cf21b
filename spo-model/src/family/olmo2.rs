//! OLMo 2: norms on what attention and feed-forward block add, and over all queries and keys.

use super::{Config, Family};
use crate::layout::Layout;
use crate::spec::{NormPlacement, QkNorm};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "olmo2", about: "OLMo 2", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    olmo2_like(config, "olmo2")
}

/// What OLMo 2 and 3 share.
pub fn olmo2_like(config: &Config, family: &'static str) -> Result<ModelSpec, ModelError> {
    let bias = config.flag_or("attention_bias", false)?;
    Ok(ModelSpec {
        norm_placement: NormPlacement::After,
        norm_eps: config.number_or("rms_norm_eps", 1e-5)?,
        qk_norm: QkNorm::Whole,
        qkv_bias: bias,
        output_bias: bias,
        layout: &Layout::NORMS_BY_PLACE,
        ..config.llama_like(family, None)?
    })
}
