//! What the registry says about one kind of scorer, and how it is made of its options.

use std::path::PathBuf;

use schemars::Schema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Models, ScoreError, Scorer, ScorerSpec};

/// What a scorer may use while it is opened.
pub struct Opening<'a> {
    /// Opens models by name.
    pub models: &'a dyn Models,
    /// File that a program's standard error is appended to; without one it is the caller's own.
    pub log: Option<PathBuf>,
    /// Where programs run; without one it is the caller's own directory.
    pub directory: Option<PathBuf>,
}

/// One kind of scorer.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// One line for a user.
    pub summary: &'static str,
    /// The short form, as an example.
    pub example: &'static str,
    /// Its options with their documentation.
    pub options: fn() -> Schema,
    /// The option that stands behind the colon of the short form; `None` where that is a list of `option=value`.
    pub argument: Option<&'static str>,
    /// What is wrong with its options, without opening anything.
    pub check: fn(Map<String, Value>) -> Result<(), OpenError>,
    /// Makes one of its options, which were checked; the opener is for scorers that consist of others.
    pub open: Open,
}

/// Makes a scorer of its options.
pub type Open = fn(Map<String, Value>, &Opening, Opener) -> Result<Box<dyn Scorer>, OpenError>;

/// Opens further scorers.
pub type Opener<'a> = &'a dyn Fn(&ScorerSpec, &Opening) -> Result<Box<dyn Scorer>, ScoreError>;

/// Why a scorer cannot be opened: its options are wrong, or something it needs fails.
#[derive(Debug)]
pub enum OpenError {
    /// What is wrong with the options.
    Options(String),
    /// Anything else.
    Other(ScoreError),
}

impl From<ScoreError> for OpenError {
    fn from(error: ScoreError) -> Self {
        Self::Other(error)
    }
}

impl From<serde_json::Error> for OpenError {
    fn from(error: serde_json::Error) -> Self {
        Self::Options(error.to_string())
    }
}

/// Options decoded into a type that refuses unknown keys.
///
/// # Errors
/// What serde finds wrong with them.
pub fn decoded<T: DeserializeOwned>(options: Map<String, Value>) -> Result<T, OpenError> {
    Ok(serde_json::from_value(Value::Object(options))?)
}
