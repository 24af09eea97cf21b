//! What is asked of the Hub, what comes of it, and what is heard on the way.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is needed of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// Weights, configuration and tokenizer of a model or an adapter.
    Model,
    /// The tokenizer and the configuration.
    Tokenizer,
    /// Rows of a data set.
    Rows {
        /// The configuration; the only one, or `default`, if absent.
        config: Option<String>,
        /// The split; by `test` if absent.
        split: Option<String>,
        /// Whether `test`, or else `validation`, is the usual split, and not `train`.
        test: bool,
    },
}

/// A name, and where it lies now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fetched {
    /// The name.
    pub name: String,
    /// The commit that its revision is.
    pub commit: String,
    /// The directory, or the file that was named.
    pub path: PathBuf,
    /// The files that were asked for.
    #[serde(skip)]
    pub files: Vec<PathBuf>,
}

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes of all files are there.
    Bytes {
        /// The name.
        name: String,
        /// Bytes that are there, those of earlier attempts included.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Something a user should know.
    Note(String),
}
