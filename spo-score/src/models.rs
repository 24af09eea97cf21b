//! How scorers come to models: whoever opens a scorer knows what names mean.

use spo_data::{TextSpec, Tokenizer};
use spo_model::CausalLm;

use crate::ScoreError;

/// A policy in memory.
#[derive(Debug)]
pub struct LoadedPolicy {
    /// The model.
    pub model: CausalLm,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// How its text is laid out.
    pub text: TextSpec,
}

/// Opens models by name: a directory, a GGUF file, `RUN:POLICY`, or inside of a run a policy's name.
pub trait Models {
    /// The policy of this name.
    ///
    /// # Errors
    /// There is none, or it cannot be loaded.
    fn open(&self, name: &str) -> Result<LoadedPolicy, ScoreError>;
}

/// Knows no model: for scorers that need none.
#[derive(Debug, Clone, Copy)]
pub struct NoModels;

impl Models for NoModels {
    fn open(&self, name: &str) -> Result<LoadedPolicy, ScoreError> {
        Err(ScoreError::Model { name: name.into(), source: "no models can be opened here".into() })
    }
}
