//! Ministral 3: Mistral with YaRN, and queries that grow with their position beyond the context of the pre-training.

use super::{Config, Family};
use crate::{ModelError, ModelSpec};

pub const FAMILY: Family = Family { name: "ministral3", about: "Ministral 3, text", parse };

fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
    let spec = config.llama_like("ministral3", Some(128))?;
    config.windowed(ModelSpec { norm_eps: config.number_or("rms_norm_eps", 1e-5)?, ..spec })
}
