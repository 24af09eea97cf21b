//! What a model is called in GGUF files: one description per family, for writing and for reading.

pub mod architecture;
pub mod keys;
pub mod order;
pub mod tensors;

use crate::ModelError;

/// Why a model cannot be written as GGUF.
pub fn unsupported(reason: &str) -> ModelError {
    ModelError::Export { format: "GGUF", reason: reason.into() }
}
