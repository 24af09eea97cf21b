//! `[[data]]` and `[text]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use spo_data::{DataSpec, TextSpec};

/// One source of preference pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DataEntry {
    /// What the rows are used for.
    #[serde(default)]
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
