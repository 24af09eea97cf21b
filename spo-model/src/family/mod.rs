//! Model families: one file each, which turns `config.json` into a [`ModelSpec`], and the [`Registry`] that other crates
//! add theirs to.
//!
//! ```
//! use spo_model::family::{Config, Family, Registry};
//! use spo_model::{ModelError, ModelSpec};
//!
//! static LOUD: Family = Family { name: "loud", about: "Llama without its rotary embedding", parse };
//!
//! fn parse(config: &Config) -> Result<ModelSpec, ModelError> {
//!     let mut spec = config.llama_like("loud", None)?;
//!     spec.layers.iter_mut().for_each(|layer| layer.rope = None);
//!     Ok(spec)
//! }
//!
//! let families = Registry::builtin().add(&LOUD);
//! let spec = families.spec_from_json(r#"{ "model_type": "loud", "vocab_size": 32, "hidden_size": 16,
//!     "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4 }"#)?;
//! assert_eq!((spec.family, spec.layers[0].rope), ("loud", None));
//! # Ok::<(), ModelError>(())
//! ```

mod apertus;
mod cohere2;
mod config;
mod exaone4;
mod gemma;
mod gemma2;
mod gemma3;
mod gemma4;
mod glm4;
mod gpt2;
mod gpt_neox;
mod gpt_oss;
mod granite;
mod granitemoe;
mod hunyuan_dense;
mod llama;
mod ministral3;
mod mistral;
mod mixtral;
mod olmo2;
mod olmo3;
mod olmoe;
mod phi3;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod refused;
mod rope;
mod seed_oss;
mod smollm3;

use crate::spec::{Activation, MlpKind};
use crate::{ModelError, ModelSpec};

pub use config::{Config, token_ids};
pub use rope::RopeDefaults;

/// A supported architecture.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// The value of `model_type`.
    pub name: &'static str,
    /// What sets it apart, for listings.
    pub about: &'static str,
    /// The shape that a `config.json` of this family describes; begin with [`Config::llama_like`].
    ///
    /// # Errors
    /// Keys that are missing, of the wrong type or out of range.
    pub parse: fn(&Config) -> Result<ModelSpec, ModelError>,
}

/// The families of this crate.
pub const FAMILIES: &[Family] = &[
    llama::FAMILY,
    mistral::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    gemma::FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    gemma4::FAMILY,
    phi3::FAMILY,
    olmo2::FAMILY,
    smollm3::FAMILY,
    gpt2::FAMILY,
    gpt_neox::FAMILY,
    granite::FAMILY,
    seed_oss::FAMILY,
    hunyuan_dense::FAMILY,
    exaone4::FAMILY,
    olmo3::FAMILY,
    ministral3::FAMILY,
    glm4::FAMILY,
    cohere2::FAMILY,
    apertus::FAMILY,
    mixtral::FAMILY,
    qwen2_moe::FAMILY,
    qwen3_moe::FAMILY,
    olmoe::FAMILY,
    granitemoe::FAMILY,
    gpt_oss::FAMILY,
];

/// Model families by `model_type`. [`ModelSpec::from_path`] and `CausalLm::open` use [`Registry::builtin`].
#[derive(Debug, Clone)]
pub struct Registry {
    families: Vec<&'static Family>,
}

/// Registries are equal when they hold the same names.
impl PartialEq for Registry {
    fn eq(&self, other: &Self) -> bool {
        self.iter().map(|family| family.name).eq(other.iter().map(|family| family.name))
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Registry {
    /// The families of this crate.
    pub fn builtin() -> Self {
        Self { families: FAMILIES.iter().collect() }
    }

    /// With one more family, which takes the place of one that has its name.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "entries are added, not numbers")]
    pub fn add(mut self, family: &'static Family) -> Self {
        self.families.retain(|other| other.name != family.name);
        self.families.push(family);
        self
    }

    /// All families.
    pub fn iter(&self) -> impl Iterator<Item = &'static Family> + '_ {
        self.families.iter().copied()
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// Unusable JSON, an unknown or refused `model_type`, a missing or inconsistent key.
    pub fn spec_from_json(&self, text: &str) -> Result<ModelSpec, ModelError> {
        self.parse("config.json", text)
    }

    pub(crate) fn parse(&self, file: &str, text: &str) -> Result<ModelSpec, ModelError> {
        let config = Config::parse(file, text)?;
        let found = config.string("model_type")?;
        let family = self.iter().find(|family| family.name == found);
        // A family from outside says itself what it refuses.
        let ours = family.is_none_or(|family| FAMILIES.iter().any(|own| own.name == family.name));
        if let Some(reason) = refused::reason(&config, &found).filter(|_| ours) {
            return Err(ModelError::RefusedFamily { file: file.into(), found, reason });
        }
        let refused = |reason| ModelError::RefusedFamily { file: file.into(), found: found.clone(), reason };
        let Some(family) = family else {
            return Err(refused::experts(&config).map_or_else(|| self.unknown(file, &found), refused));
        };
        let spec = (family.parse)(&config)?;
        if let Some(reason) = refused::experts(&config).filter(|_| ours && spec.experts.is_none()) {
            return Err(refused(reason));
        }
        if !spec.heads.is_multiple_of(spec.kv_heads) {
            let expected = format!("a divisor of num_attention_heads = {}", spec.heads);
            return Err(config.error("num_key_value_heads", &spec.kv_heads.to_string(), &expected));
        }
        if spec.activation == Activation::Xielu && spec.mlp != MlpKind::Plain {
            return Err(config.error("hidden_act", "xielu", "an activation of a gated block"));
        }
        if spec.head_dim == 0 {
            let found = format!("{} heads of a width of {}", spec.heads, spec.hidden_size);
            return Err(config.error("num_attention_heads", &found, "no more heads than channels"));
        }
        Ok(spec)
    }

    fn unknown(&self, file: &str, found: &str) -> ModelError {
        let nearest = self
            .iter()
            .map(|family| (strsim::jaro_winkler(family.name, found), family.name))
            .filter(|(similarity, _)| *similarity > 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, name)| name.to_string());
        let known = self.iter().map(|family| family.name).collect();
        ModelError::UnknownFamily { file: file.into(), found: found.into(), nearest, known }
    }
}

impl ModelSpec {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// Unusable JSON, an unknown or refused `model_type`, a missing or inconsistent key.
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        Registry::builtin().spec_from_json(text)
    }
}
