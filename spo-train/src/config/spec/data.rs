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
    /// Of a data set on the Hugging Face Hub: which of its configurations; `default`, or the only one, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_config: Option<String>,
    /// Of a data set on the Hub: which of its splits; `train`, or with `split = "test"` its `test` or `validation`, or the only
    /// one, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_split: Option<String>,
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
