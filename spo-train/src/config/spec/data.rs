//! `[[data]]` and `[text]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One source of preference pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DataEntry {
    /// Which side of the split the rows belong to.
    pub split: Split,
    /// Where the rows are and how they read.
    #[serde(flatten)]
    pub source: DataSpec,
}

/// What rows are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// Trained on, less the held-out share if no data has `split = "test"`.
    #[default]
    Train,
    /// Only evaluated on.
    Test,
}

/// Stands in for `spo_data::DataSpec` until that crate has it.
pub type DataSpec = serde_json::Map<String, serde_json::Value>;
/// Stands in for `spo_data::TextSpec` until that crate has it.
pub type TextSpec = serde_json::Map<String, serde_json::Value>;
