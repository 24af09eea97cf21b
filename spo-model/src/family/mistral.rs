//! Mistral: Llama with an optional sliding attention window.

use super::{Config, Family};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "mistral", about: "Mistral, with its sliding window", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let mut spec = config.llama_like("mistral", None)?;
    if config.has("sliding_window") {
        let window = config.count("sliding_window")?;
        config.windows(&mut spec, window, |_| true)?;
    }
    Ok(spec)
}
