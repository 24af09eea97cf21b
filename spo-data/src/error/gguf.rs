//! What is wrong with a GGUF file.

use std::path::PathBuf;

/// What is wrong with a GGUF file, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}: {place}: {reason}", path.display())]
pub struct GgufError {
    /// The file.
    pub path: PathBuf,
    /// The byte, key or tensor.
    pub place: String,
    /// What was found there, and what was expected.
    pub reason: String,
    /// What a user can do about it.
    pub hint: Option<&'static str>,
}

impl GgufError {
    /// With what a user can do about it.
    #[must_use]
    pub fn hinted(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
}
