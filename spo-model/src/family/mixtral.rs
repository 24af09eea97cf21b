//! Mixtral: Mistral with a mixture of experts in every block.

use super::{Config, Family};
use crate::layout::{ExpertLayout, Layout};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "mixtral", about: "Mixtral, a mixture of experts", parse };

const LAYOUT: Layout = Layout {
    names: &[
        ("pre_feedforward_layernorm", "post_attention_layernorm"),
        ("moe.router", "block_sparse_moe.gate"),
        ("moe", "block_sparse_moe"),
    ],
    experts: ExpertLayout::Each(&[("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")]),
    ..Layout::LLAMA
};

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let spec = ModelSpec {
        norm_eps: config.number_or("rms_norm_eps", 1e-5)?,
        layout: &LAYOUT,
        ..config.llama_like("mixtral", None)?
    };
    let experts = config.experts("num_local_experts", spec.intermediate_size)?;
    config.windowed(spec.with_experts(experts, |_| true))
}
