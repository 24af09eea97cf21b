//! The kinds of scorers by name: a value, to which other crates add their own.

use serde_json::{Map, Value};

use crate::entry::{Entry, OpenError, Opening};
use crate::kind;
use crate::{ScoreError, Scorer, ScorerSpec};

/// Kinds of scorers by name.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// The kinds of this crate.
    pub fn builtin() -> Self {
        Self { entries: kind::BUILTIN.to_vec() }
    }

    /// With one more kind, which takes the place of one that has its name.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "entries are added, not numbers")]
    pub fn add(mut self, entry: Entry) -> Self {
        self.entries.retain(|other| other.name != entry.name);
        self.entries.push(entry);
        self
    }

    /// All kinds.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Opens a scorer.
    ///
    /// # Errors
    /// An unknown kind, options that it does not have, a program or model that cannot be opened.
    pub fn open(&self, spec: &ScorerSpec, opening: &Opening) -> Result<Box<dyn Scorer>, ScoreError> {
        let (entry, options) = self.checked(spec)?;
        let opened = (entry.open)(options, opening, &|spec, opening| self.open(spec, opening));
        opened.map_err(|error| refused(entry, spec, error))
    }

    /// What is wrong with a spec, as far as that can be told without opening anything.
    ///
    /// # Errors
    /// An unknown kind, options that it does not have.
    pub fn check(&self, spec: &ScorerSpec) -> Result<(), ScoreError> {
        self.checked(spec).map(drop)
    }

    fn checked(&self, spec: &ScorerSpec) -> Result<(&Entry, Map<String, Value>), ScoreError> {
        let entry = self.entry(spec)?;
        let options = options(entry, spec).map_err(|reason| refused(entry, spec, OpenError::Options(reason)))?;
        (entry.check)(options.clone()).map_err(|error| refused(entry, spec, error))?;
        for part in parts(&options) {
            self.check(&part)?;
        }
        Ok((entry, options))
    }

    /// The kind that a spec names.
    ///
    /// # Errors
    /// There is none.
    pub fn entry(&self, spec: &ScorerSpec) -> Result<&Entry, ScoreError> {
        self.entries.iter().find(|entry| entry.name == spec.kind).ok_or_else(|| {
            let known: Vec<&'static str> = self.entries.iter().map(|entry| entry.name).collect();
            let near = |name: &&&'static str| strsim::normalized_damerau_levenshtein(&spec.kind, name) > 0.5;
            ScoreError::UnknownKind { found: spec.kind.clone(), nearest: known.iter().find(near).copied(), known }
        })
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::builtin()
    }
}

/// The scorers that one consists of.
fn parts(options: &Map<String, Value>) -> Vec<ScorerSpec> {
    let parts = options.get("parts").and_then(Value::as_array).into_iter().flatten();
    parts.filter_map(|part| serde_json::from_value(part.get("scorer")?.clone()).ok()).collect()
}

fn refused(entry: &Entry, spec: &ScorerSpec, error: OpenError) -> ScoreError {
    match error {
        OpenError::Other(error) => error,
        OpenError::Options(reason) => ScoreError::BadSpec {
            spec: spec.to_string(),
            reason,
            hint: Some(format!("as in {}; `spo list scorers` shows its options", entry.example)),
        },
    }
}

/// The options of a table, or those that the short form stands for.
fn options(entry: &Entry, spec: &ScorerSpec) -> Result<Map<String, Value>, String> {
    let mut options = spec.options.clone();
    match (&spec.argument, entry.argument) {
        (None, _) => {}
        (Some(text), Some(name)) => {
            options.insert(name.into(), Value::String(text.clone()));
        }
        (Some(text), None) => {
            for part in text.split(',').filter(|part| !part.trim().is_empty()) {
                let (name, value) = part.split_once('=').ok_or(format!("`{part}` is not OPTION=VALUE"))?;
                let value = serde_json::from_str(value.trim()).unwrap_or_else(|_| Value::String(value.trim().into()));
                options.insert(name.trim().into(), value);
            }
        }
    }
    Ok(options)
}
