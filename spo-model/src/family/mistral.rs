//! Mistral: Llama with an optional sliding attention window.

use super::{Config, Family};
use crate::spec::LayerSpec;
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "mistral", about: "Mistral, with its sliding window", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let mut spec = config.llama_like("mistral")?;
    if config.has("sliding_window") {
        let window = Some(config.count("sliding_window")?);
        spec.layers.fill(LayerSpec { window });
    }
    Ok(spec)
}
