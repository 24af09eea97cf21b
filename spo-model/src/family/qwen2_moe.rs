//! Qwen 1.5 and 2 as mixtures of experts: beside the experts that the router picks, one that every token goes through.

use super::{Config, Family, qwen2::qwen_windows};
use crate::layout::Layout;
use crate::spec::ExpertsSpec;
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "qwen2_moe", about: "Qwen 1.5 and 2, a mixture of experts", parse };

/// A router called `gate`, a tensor for each projection of each expert.
pub const LAYOUT: Layout = Layout {
    names: &[("pre_feedforward_layernorm", "post_attention_layernorm"), ("moe.router", "mlp.gate"), ("moe", "mlp")],
    ..Layout::LLAMA
};

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let mut spec = ModelSpec {
        qkv_bias: config.flag_or("qkv_bias", true)?,
        layout: &LAYOUT,
        ..config.llama_like("qwen2_moe", None)?
    };
    qwen_windows(config, &mut spec)?;
    let experts = config.experts("num_experts", config.count_or("moe_intermediate_size", 1408)?)?;
    let experts = ExpertsSpec {
        renormalised: config.flag_or("norm_topk_prob", false)?,
        shared: Some(config.count_or("shared_expert_intermediate_size", 5632)?),
        ..experts
    };
    let sparse = sparse_blocks(config, spec.layers.len())?;
    Ok(spec.with_experts(experts, |index| sparse[index]))
}

/// The blocks that are mixtures: every `decoder_sparse_step`th but those of `mlp_only_layers`.
pub fn sparse_blocks(config: &Config, layers: usize) -> Result<Vec<bool>, ModelError> {
    let step = config.count_or("decoder_sparse_step", 1)?;
    let dense = match config.get("mlp_only_layers") {
        None => vec![],
        Some(_) => config.indices("mlp_only_layers", layers)?,
    };
    Ok((0..layers).map(|index| (index + 1).is_multiple_of(step) && !dense.contains(&index)).collect())
}
