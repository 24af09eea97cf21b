//! The registry of model families: one file each, which turns `config.json` into a [`ModelSpec`].

mod config;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod llama;
mod mistral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod refused;
mod rope;
mod smollm3;

use crate::{ModelError, ModelSpec};
pub(crate) use config::token_ids;

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
pub const FAMILIES: &[Family] = &[
    llama::FAMILY,
    mistral::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    gemma::FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    phi3::FAMILY,
    olmo2::FAMILY,
    smollm3::FAMILY,
    gpt2::FAMILY,
    gpt_neox::FAMILY,
];

/// The supported `model_type`s, comma-separated.
pub fn names() -> String {
    FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().join(", ")
}

pub(crate) fn parse(file: &str, text: &str) -> Result<ModelSpec, ModelError> {
    let config = Config::parse(file, text)?;
    let found = config.string("model_type")?;
    if let Some(reason) = refused::reason(&config, &found) {
        return Err(ModelError::RefusedFamily { file: file.into(), found, reason });
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
    if !spec.heads.is_multiple_of(spec.kv_heads) {
        let expected = format!("a divisor of num_attention_heads = {}", spec.heads);
        return Err(config.error("num_key_value_heads", &spec.kv_heads.to_string(), &expected));
    }
    if spec.head_dim == 0 {
        let found = format!("{} heads of a width of {}", spec.heads, spec.hidden_size);
        return Err(config.error("num_attention_heads", &found, "no more heads than channels"));
    }
    Ok(spec)
}
