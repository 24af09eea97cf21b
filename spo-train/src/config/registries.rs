//! What a run file may name: a value, to which other crates add their own.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use spo_core::objective;
use spo_model::family;

use super::schema::json_schema;

/// The objectives, model families, scorers, layouts of rows and file formats that a run knows.
///
/// ```
/// use spo_core::objective::Registry;
/// use spo_train::config::{Registries, RunSpec, init};
///
/// let registries = Registries { objectives: Registry::builtin(), ..Registries::default() }; // .add(&ENTRY)
/// let spec = RunSpec::parse("run.toml", None, &init::template(), registries)?;
/// assert!(spec.registries().objectives.entry("dpo").is_ok());
/// # Ok::<(), spo_train::config::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Registries {
    /// Losses, by the name of `objective`.
    pub objectives: objective::Registry,
    /// Architectures, by the `model_type` of the model's `config.json`.
    pub families: family::Registry,
    /// Scorers, by the kind of `scorer`.
    pub scorers: spo_score::Registry,
    /// Layouts of rows and file formats, by the names of `schema` and `format` of `[[data]]`.
    pub data: spo_data::Registry,
}

/// Registries, and the schema of the run files that may name what they hold.
#[derive(Debug)]
pub(crate) struct Known {
    pub registries: Registries,
    pub schema: Value,
}

static BUILTIN: LazyLock<Arc<Known>> = LazyLock::new(|| Known::new(Registries::default()));

impl Known {
    pub fn new(registries: Registries) -> Arc<Self> {
        Arc::new(Self { schema: json_schema(&registries), registries })
    }

    /// What the libraries of this workspace hold.
    pub fn builtin() -> &'static Arc<Self> {
        &BUILTIN
    }
}
