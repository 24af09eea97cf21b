//! An objective as a user writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Objective;
use crate::CoreError;

/// A named objective and its hyper-parameters, e.g. `{"name": "spo", "alpha": 0.1, "lambda": 1.0}`.
///
/// Decoding takes any options; [`ObjectiveSpec::build`] knows which ones the name has, so an error points at the key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectiveSpec {
    /// A name of the registry.
    pub name: String,
    /// Hyper-parameters by kebab-case name.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

impl ObjectiveSpec {
    /// The objective with its defaults.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), options: Map::new() }
    }

    /// The paired objective that this describes.
    ///
    /// # Errors
    /// Unknown names and options, values out of range.
    pub fn build(&self) -> Result<Box<dyn Objective>, CoreError> {
        super::build(&self.name, &self.options)
    }
}
