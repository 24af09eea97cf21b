//! Apertus: norms of each head's queries and keys, a feed-forward block without a gate whose activation is learned (xIELU).

use super::{Config, Family};
use crate::layout::Layout;
use crate::spec::{Activation, MlpKind, QkNorm};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "apertus", about: "Apertus, with xIELU", parse };

const LAYOUT: Layout = Layout {
    names: &[
        ("input_layernorm", "attention_layernorm"),
        ("pre_feedforward_layernorm", "feedforward_layernorm"),
        ("mlp.xielu", "mlp.act_fn"),
    ],
    scalars: &["act_fn.beta", "act_fn.eps"],
    ..Layout::LLAMA
};

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let (bias, activation) = (config.flag_or("attention_bias", false)?, Activation::Xielu);
    let found = config.activation_or("hidden_act", activation)?;
    if found != activation {
        return Err(config.error("hidden_act", &format!("{found:?}"), "xielu"));
    }
    Ok(ModelSpec {
        norm_eps: config.number_or("rms_norm_eps", 1e-5)?,
        qk_norm: QkNorm::PerHead,
        qkv_bias: bias,
        output_bias: bias,
        mlp: MlpKind::Plain,
        activation,
        layout: &LAYOUT,
        ..config.llama_like("apertus", None)?
    })
}
