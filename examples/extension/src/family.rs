//! A model family: Llama without a rotary embedding in every other block.

use spo_model::family::{Config, Family};
use spo_model::{ModelError, ModelSpec};

pub(crate) static HALF_ROPE: Family =
    Family { name: "half-rope", about: "Llama, every other block without positions", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let mut spec = config.llama_like(HALF_ROPE.name, None)?;
    spec.layers.iter_mut().skip(1).step_by(2).for_each(|layer| layer.rope = None);
    Ok(spec)
}
