//! GLM 4 (0414): norms around each part, half of the channels rotated in neighbouring pairs, a stacked feed-forward projection.

use super::rope::RopeDefaults;
use super::{Config, Family};
use crate::layout::Layout;
use crate::spec::{MlpKind, NormPlacement};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "glm4", about: "GLM 4 (0414)", parse };

const LAYOUT: Layout = Layout {
    names: &[
        ("post_attention_layernorm", "post_self_attn_layernorm"),
        ("pre_feedforward_layernorm", "post_attention_layernorm"),
        ("post_feedforward_layernorm", "post_mlp_layernorm"),
    ],
    ..Layout::LLAMA
};

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let mut spec = ModelSpec {
        norm_placement: NormPlacement::Around,
        qkv_bias: config.flag_or("attention_bias", true)?,
        mlp: MlpKind::GatedFused,
        layout: &LAYOUT,
        ..config.llama_like("glm4", Some(128))?
    };
    let theta = config.number_or("rope_theta", 10_000.0)?;
    let partial = config.number_or("partial_rotary_factor", 0.5)?;
    config.rope(&mut spec, RopeDefaults { theta, window_theta: None, partial })?;
    spec.ropes.iter_mut().for_each(|rope| rope.pairs = true);
    Ok(spec)
}
