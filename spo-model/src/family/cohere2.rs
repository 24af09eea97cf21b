//! Cohere 2 (Command R7B, Command A, Aya): attention and feed-forward block in parallel behind one layer norm without a bias,
//! neighbouring channels rotated, and only in blocks with a window; scaled logits, a tied head.

use super::{Config, Family};
use crate::spec::{NormKind, NormPlacement};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "cohere2", about: "Cohere 2: Command R7B, Command A", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let bias = config.flag_or("attention_bias", false)?;
    let mut spec = ModelSpec {
        norm: NormKind::LayerUnbiased,
        norm_eps: config.number_or("layer_norm_eps", 1e-5)?,
        norm_placement: NormPlacement::Shared,
        parallel: true,
        tied: config.flag_or("tie_word_embeddings", true)?,
        qkv_bias: bias,
        output_bias: bias,
        logit_scale: config.number_or("logit_scale", 0.0625)?,
        ..config.llama_like("cohere2", None)?
    };
    let (window, every) = (config.count_or("sliding_window", 4096)?, config.count_or("sliding_window_pattern", 4)?);
    config.windows(&mut spec, window, |index| !(index + 1).is_multiple_of(every))?;
    spec.ropes.iter_mut().for_each(|rope| rope.pairs = true);
    for layer in &mut spec.layers {
        layer.rope = layer.rope.filter(|_| layer.attention.window.is_some());
    }
    Ok(spec)
}
