//! Hunyuan, dense: Llama with norms of each head's queries and keys behind the rotary embedding, whose base may be stretched
//! for long contexts once and for all.

use super::{Config, Family};
use crate::layout::Layout;
use crate::spec::QkNorm;
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "hunyuan_v1_dense", about: "Hunyuan, dense", parse };

const LAYOUT: Layout = Layout {
    names: &[
        ("pre_feedforward_layernorm", "post_attention_layernorm"),
        ("self_attn.q_norm", "self_attn.query_layernorm"),
        ("self_attn.k_norm", "self_attn.key_layernorm"),
    ],
    ..Layout::LLAMA
};

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let bias = config.flag_or("attention_bias", false)?;
    let mut spec = ModelSpec {
        norm_eps: config.number_or("rms_norm_eps", 1e-5)?,
        qk_norm: QkNorm::PerHeadRotated,
        qkv_bias: bias,
        output_bias: bias,
        layout: &LAYOUT,
        ..config.llama_like("hunyuan_v1_dense", None)?
    };
    // Its `dynamic` scaling has a fixed alpha: NTK-aware scaling of the base.
    if let Some(alpha) = config.rope_number("alpha")? {
        let dim = spec.head_dim as f64;
        spec.ropes.iter_mut().for_each(|rope| rope.theta *= alpha.powf(dim / (dim - 2.0)));
    }
    Ok(spec)
}
