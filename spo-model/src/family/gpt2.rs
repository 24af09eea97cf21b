//! GPT-2: learned positions, layer norms, biases, a plain GELU feed-forward block, weights stored
//! `[in, out]`.

use super::{Config, Family};
use crate::layout::Layout;
use crate::spec::{Activation, AttentionSpec, LayerSpec, MlpKind, NormKind, NormPlacement, QkNorm, QkvLayout};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "gpt2", about: "GPT-2", parse };

const LAYOUT: Layout = Layout {
    prefix: "transformer.",
    names: &[
        ("layers", "h"),
        ("embed_tokens", "wte"),
        ("embed_positions", "wpe"),
        ("norm", "ln_f"),
        ("input_layernorm", "ln_1"),
        ("pre_feedforward_layernorm", "ln_2"),
        ("self_attn.qkv_proj", "attn.c_attn"),
        ("self_attn.o_proj", "attn.c_proj"),
        ("mlp.up_proj", "mlp.c_fc"),
        ("mlp.down_proj", "mlp.c_proj"),
    ],
    conv1d: true,
    buffers: &[".attn.bias", ".attn.masked_bias"],
    ..Layout::LLAMA
};

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    if config.flag_or("add_cross_attention", false)? {
        return Err(config.error("add_cross_attention", "true", "false: a decoder alone"));
    }
    let (hidden_size, heads) = (config.count("n_embd")?, config.count("n_head")?);
    let head_dim = hidden_size / heads;
    let scaled = config.flag_or("scale_attn_weights", true)?;
    let by_layer = config.flag_or("scale_attn_by_inverse_layer_idx", false)?;
    let layers = (0..config.count("n_layer")?).map(|index| {
        let mut attention = AttentionSpec::plain(head_dim);
        attention.scale = if scaled { attention.scale } else { 1.0 };
        attention.scale /= if by_layer { (index + 1) as f64 } else { 1.0 };
        LayerSpec { attention, rope: None, experts: false }
    });
    Ok(ModelSpec {
        family: "gpt2",
        vocab_size: config.count("vocab_size")?,
        hidden_size,
        intermediate_size: config.count_or("n_inner", 4 * hidden_size)?,
        heads,
        kv_heads: heads,
        head_dim,
        context: config.count_or("n_positions", 1024)?,
        norm: NormKind::Layer,
        norm_eps: config.number_or("layer_norm_epsilon", 1e-5)?,
        norm_placement: NormPlacement::Before,
        parallel: false,
        tied: config.flag_or("tie_word_embeddings", true)?,
        qkv: QkvLayout::Stacked,
        qkv_bias: true,
        output_bias: true,
        mlp_bias: true,
        qk_norm: QkNorm::None,
        mlp: MlpKind::Plain,
        activation: config.activation_or("activation_function", Activation::GeluTanh)?,
        embedding_scale: None,
        learned_positions: true,
        logit_softcap: None,
        logit_scale: 1.0,
        residual_scale: 1.0,
        sinks: false,
        layer_inputs: None,
        layer_scalars: false,
        experts: None,
        ropes: vec![],
        layers: layers.collect(),
        layout: &LAYOUT,
        eos: config.eos()?,
    })
}
