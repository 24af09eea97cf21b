//! Granite 3 as a mixture of experts: Granite's factors, all experts of a block in one tensor.

use super::{Config, Family, granite::granite_like};
use crate::layout::{ExpertLayout, Layout};
use crate::spec::{ExpertsSpec, MlpKind};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "granitemoe", about: "Granite 3, a mixture of experts", parse };

const LAYOUT: Layout = Layout {
    names: &[
        ("pre_feedforward_layernorm", "post_attention_layernorm"),
        ("moe.router", "block_sparse_moe.router.layer"),
        ("moe", "block_sparse_moe"),
    ],
    experts: ExpertLayout::Stacked {
        names: &[
            ("gate_up_proj.weight", "block_sparse_moe.input_linear.weight"),
            ("down_proj.weight", "block_sparse_moe.output_linear.weight"),
        ],
        transposed: false,
    },
    ..Layout::LLAMA
};

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let spec = ModelSpec { layout: &LAYOUT, ..granite_like(config, "granitemoe")? };
    let experts = config.experts("num_local_experts", spec.intermediate_size)?;
    Ok(spec.with_experts(ExpertsSpec { mlp: MlpKind::GatedFused, ..experts }, |_| true))
}
