//! The registry of model families: one file each, which turns `config.json` into a [`ModelSpec`].

mod config;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;

use crate::{ModelError, ModelSpec};
use config::Config;

/// A supported architecture.
pub struct Family {
    /// The value of `model_type`.
    pub name: &'static str,
    /// What sets it apart, for listings.
    pub about: &'static str,
    parse: fn(&Config) -> Result<ModelSpec, ModelError>,
}

/// All supported families.
pub const FAMILIES: &[Family] = &[llama::FAMILY, mistral::FAMILY, qwen2::FAMILY, qwen3::FAMILY];

/// The supported `model_type`s, comma-separated.
pub fn names() -> String {
    FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().join(", ")
}

pub(crate) fn parse(file: &str, text: &str) -> Result<ModelSpec, ModelError> {
    let config = Config::parse(file, text)?;
    let found = config.string("model_type")?;
    if let Some(key) =
        ["vision_config", "text_config", "num_local_experts", "num_experts"].into_iter().find(|key| config.has(key))
    {
        return Err(ModelError::RefusedFamily {
            file: file.into(),
            found,
            reason: format!("`{key}` marks a vision or mixture-of-experts model; only dense text decoders are trained"),
        });
    }
    let Some(family) = FAMILIES.iter().find(|family| family.name == found) else {
        let nearest = FAMILIES
            .iter()
            .map(|family| (strsim::jaro_winkler(family.name, &found), family.name))
            .filter(|(similarity, _)| *similarity > 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, name)| name.to_string());
        return Err(ModelError::UnknownFamily { file: file.into(), found, nearest });
    };
    let spec = (family.parse)(&config)?;
    if spec.kv_heads == 0 || !spec.heads.is_multiple_of(spec.kv_heads) {
        return Err(config.error(
            "num_key_value_heads",
            &spec.kv_heads.to_string(),
            &format!("a divisor of num_attention_heads = {}", spec.heads),
        ));
    }
    if !spec.head_dim.is_multiple_of(2) {
        return Err(config.error("head_dim", &spec.head_dim.to_string(), "an even number"));
    }
    Ok(spec)
}
