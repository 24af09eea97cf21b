//! Qwen 3 as a mixture of experts: norms of each head's queries and keys.

use super::qwen2_moe::{LAYOUT, sparse_blocks};
use super::{Config, Family, qwen2::qwen_windows};
use crate::spec::{ExpertsSpec, QkNorm};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "qwen3_moe", about: "Qwen 3, a mixture of experts", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let bias = config.flag_or("attention_bias", false)?;
    let mut spec = ModelSpec {
        qkv_bias: bias,
        output_bias: bias,
        qk_norm: QkNorm::PerHead,
        layout: &LAYOUT,
        ..config.llama_like("qwen3_moe", None)?
    };
    qwen_windows(config, &mut spec)?;
    let key = if config.has("num_experts") { "num_experts" } else { "num_local_experts" };
    let experts = config.experts(key, config.count_or("moe_intermediate_size", 768)?)?;
    let experts = ExpertsSpec { renormalised: config.flag_or("norm_topk_prob", false)?, ..experts };
    let sparse = sparse_blocks(config, spec.layers.len())?;
    Ok(spec.with_experts(experts, |index| sparse[index]))
}
