//! gpt-oss: a mixture of experts with biases and clamped activations, sinks in the attention, windows in every second block.

use super::rope::RopeDefaults;
use super::{Config, Family};
use crate::layout::{ExpertLayout, Layout};
use crate::spec::{Activation, ExpertsSpec, MlpKind};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "gpt_oss", about: "gpt-oss, a mixture of experts; MXFP4 is read", parse };

const LAYOUT: Layout = Layout {
    names: &[("pre_feedforward_layernorm", "post_attention_layernorm"), ("moe.router", "mlp.router"), ("moe", "mlp")],
    experts: ExpertLayout::Stacked {
        names: &[
            ("gate_up_proj.weight", "mlp.experts.gate_up_proj"),
            ("gate_up_proj.bias", "mlp.experts.gate_up_proj_bias"),
            ("down_proj.weight", "mlp.experts.down_proj"),
            ("down_proj.bias", "mlp.experts.down_proj_bias"),
        ],
        transposed: true,
    },
    ..Layout::LLAMA
};

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let bias = config.flag_or("attention_bias", true)?;
    let mut spec = ModelSpec {
        norm_eps: config.number_or("rms_norm_eps", 1e-5)?,
        qkv_bias: bias,
        output_bias: bias,
        sinks: true,
        activation: Activation::Clamped {
            alpha: config.number_or("swiglu_alpha", 1.702)?,
            limit: config.number_or("swiglu_limit", 7.0)?,
        },
        layout: &LAYOUT,
        ..config.llama_like("gpt_oss", Some(64))?
    };
    let window = config.count_or("sliding_window", 128)?;
    config.windows(&mut spec, window, |index| index.is_multiple_of(2))?;
    let theta = config.number_or("rope_theta", 150_000.0)?;
    config.rope(&mut spec, RopeDefaults { theta, window_theta: None, partial: 1.0 })?;
    let experts = config.experts("num_local_experts", spec.intermediate_size)?;
    Ok(spec.with_experts(ExpertsSpec { mlp: MlpKind::GatedInterleaved, bias: true, ..experts }, |_| true))
}
