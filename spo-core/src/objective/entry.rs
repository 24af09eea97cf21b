//! The registry: one line per objective.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::options::{OptionDoc, complete, nearest};
use super::{Needs, Objective};
use crate::CoreError;

/// Everything there is to say about one objective.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Loss of one pair.
    pub formula: &'static str,
    /// Derivative of that loss.
    pub gradient: &'static str,
    /// When to use it.
    pub when: &'static str,
    /// What it cannot do or where it goes wrong.
    pub limits: &'static str,
    /// Where it was defined.
    pub paper: &'static str,
    /// The inputs it looks at.
    pub needs: Needs,
    /// Its hyper-parameters.
    pub options: &'static [OptionDoc],
    /// How it is made.
    pub build: Build,
}

/// Makes an objective from its complete options.
#[derive(Debug, Clone, Copy)]
pub enum Build {
    /// A loss on pairs.
    Pair(fn(Value) -> Result<Box<dyn Objective>, serde_json::Error>),
}

impl Build {
    /// The shape of data: `paired`, `unpaired` or `list-wise`.
    pub fn takes(&self) -> &'static str {
        match self {
            Self::Pair(_) => "paired",
        }
    }
}

impl Entry {
    /// The complete options: `given` over the defaults.
    ///
    /// # Errors
    /// Unknown keys, values of the wrong type or out of range.
    pub fn resolve(&self, given: &Map<String, Value>) -> Result<Value, CoreError> {
        complete(self.name, &self.options.iter().collect::<Vec<_>>(), given)
    }

    fn invalid(&self, error: serde_json::Error) -> CoreError {
        CoreError::InvalidOption {
            objective: self.name.into(),
            key: self
                .options
                .iter()
                .map(|option| option.key)
                .collect::<Vec<_>>()
                .join(", "),
            found: error.to_string(),
            expected: "values as documented".into(),
        }
    }
}

/// `T` decoded from its complete options.
pub(crate) fn pair<T: DeserializeOwned + Objective + 'static>(
    options: Value,
) -> Result<Box<dyn Objective>, serde_json::Error> {
    Ok(Box::new(serde_json::from_value::<T>(options)?))
}

/// Every objective.
pub fn registry() -> &'static [Entry] {
    const REGISTRY: &[Entry] = &[super::spo::ENTRY, super::dpo::ENTRY];
    REGISTRY
}

/// The entry called `name`.
///
/// # Errors
/// [`CoreError::UnknownObjective`] with the nearest name.
pub fn entry(name: &str) -> Result<&'static Entry, CoreError> {
    registry()
        .iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| CoreError::UnknownObjective {
            name: name.into(),
            nearest: nearest(name, registry().iter().map(|entry| entry.name)),
        })
}

/// The paired objective `name` with `options` over its defaults.
///
/// # Errors
/// Unknown names and options, values of the wrong type or out of range, objectives that take other data.
pub fn build(name: &str, options: &Map<String, Value>) -> Result<Box<dyn Objective>, CoreError> {
    let entry = entry(name)?;
    let options = entry.resolve(options)?;
    let Build::Pair(make) = entry.build;
    let objective = make(options).map_err(|error| entry.invalid(error))?;
    objective.validate()?;
    Ok(objective)
}
