//! Mistral: Llama with an optional sliding attention window.

use super::{Config, Family};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "mistral", about: "Mistral, with its sliding window", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    config.windowed(config.llama_like("mistral", None)?)
}
