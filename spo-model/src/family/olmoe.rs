//! OLMoE: a mixture of experts in every block, norms over all queries and keys.

use super::{Config, Family, qwen2_moe::LAYOUT};
use crate::spec::{ExpertsSpec, QkNorm};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "olmoe", about: "OLMoE, a mixture of experts", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    if config.has("clip_qkv") {
        let found = config.number("clip_qkv")?.to_string();
        return Err(config.error("clip_qkv", &found, "null: queries, keys and values are not clipped"));
    }
    let bias = config.flag_or("attention_bias", false)?;
    let spec = ModelSpec {
        norm_eps: config.number_or("rms_norm_eps", 1e-5)?,
        qk_norm: QkNorm::Whole,
        qkv_bias: bias,
        output_bias: bias,
        layout: &LAYOUT,
        ..config.llama_like("olmoe", None)?
    };
    let experts = config.experts("num_experts", spec.intermediate_size)?;
    let experts = ExpertsSpec { renormalised: config.flag_or("norm_topk_prob", false)?, ..experts };
    Ok(spec.with_experts(experts, |_| true))
}
