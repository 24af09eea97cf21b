//! GPT-NeoX and Pythia: attention and feed-forward block in parallel, a quarter of the channels
//! rotated, query, key and value of each head stored together.

use super::rope::RopeDefaults;
use super::{Config, Family};
use crate::layout::Layout;
use crate::spec::{Activation, MlpKind, NormKind, QkvLayout};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "gpt_neox", about: "GPT-NeoX and Pythia", parse };

const LAYOUT: Layout = Layout {
    prefix: "gpt_neox.",
    names: &[
        ("embed_tokens", "embed_in"),
        ("lm_head", "embed_out"),
        ("norm", "final_layer_norm"),
        ("pre_feedforward_layernorm", "post_attention_layernorm"),
        ("self_attn.qkv_proj", "attention.query_key_value"),
        ("self_attn.o_proj", "attention.dense"),
        ("mlp.up_proj", "mlp.dense_h_to_4h"),
        ("mlp.down_proj", "mlp.dense_4h_to_h"),
    ],
    conv1d: false,
    buffers: &[".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"],
    ..Layout::LLAMA
};

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let bias = config.flag_or("attention_bias", true)?;
    let mut spec = ModelSpec {
        norm: NormKind::Layer,
        norm_eps: config.number_or("layer_norm_eps", 1e-5)?,
        parallel: config.flag_or("use_parallel_residual", true)?,
        qkv: QkvLayout::PerHead,
        qkv_bias: bias,
        output_bias: bias,
        mlp_bias: true,
        mlp: MlpKind::Plain,
        activation: config.activation_or("hidden_act", Activation::Gelu)?,
        layout: &LAYOUT,
        ..config.llama_like("gpt_neox", None)?
    };
    let (theta, partial) = (config.number_or("rotary_emb_base", 10_000.0)?, config.number_or("rotary_pct", 0.25)?);
    config.rope(&mut spec, RopeDefaults { theta, window_theta: None, partial })?;
    Ok(spec)
}
