//! SmolLM 3: Llama with every fourth block without a rotary embedding.

use super::rope::RopeDefaults;
use super::{Config, Family};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "smollm3", about: "SmolLM 3, with blocks without RoPE", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let bias = config.flag_or("attention_bias", false)?;
    let mut spec = ModelSpec {
        tied: config.flag_or("tie_word_embeddings", true)?,
        qkv_bias: bias,
        output_bias: bias,
        mlp_bias: config.flag_or("mlp_bias", false)?,
        ..config.llama_like("smollm3", None)?
    };
    let every = config.count_or("no_rope_layer_interval", 4)?;
    let rotated = match config.has("no_rope_layers") {
        true => {
            config.numbers("no_rope_layers", spec.layers.len())?.into_iter().map(|rotated| rotated != 0.0).collect()
        }
        false => (1..=spec.layers.len()).map(|number| !number.is_multiple_of(every)).collect::<Vec<bool>>(),
    };
    if config.flag_or("use_sliding_window", false)? && config.has("sliding_window") {
        let window = config.count("sliding_window")?;
        config.windows(&mut spec, window, |index| !rotated[index])?;
    }
    let theta = config.number_or("rope_theta", 2_000_000.0)?;
    config.rope(&mut spec, RopeDefaults { theta, window_theta: None, partial: 1.0 })?;
    for (layer, rotated) in spec.layers.iter_mut().zip(rotated) {
        layer.rope = layer.rope.filter(|_| rotated);
    }
    Ok(spec)
}
