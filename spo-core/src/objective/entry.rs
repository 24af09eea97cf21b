//! What the registry says about one objective, and how a name becomes an objective.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::modifier::{self, Modified};
use super::options::{OptionDoc, complete, nearest};
use super::registry::registry;
use super::{ListObjective, Needs, Objective, UnpairedObjective};
use crate::CoreError;

/// Everything there is to say about one objective.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Names that other trainers use for it.
    pub aliases: &'static [&'static str],
    /// Loss of one pair, answer or list.
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
    /// Its own hyper-parameters; paired objectives also take [`modifier::OPTIONS`].
    pub options: &'static [OptionDoc],
    /// Whether it looks at log-ratios by their difference only, so that an f-divergence can replace the reverse KL.
    pub difference_only: bool,
    /// How it is made.
    pub build: Build,
}

type Made<T> = Result<Box<T>, serde_json::Error>;

/// Makes an objective from its complete options.
#[derive(Debug, Clone, Copy)]
pub enum Build {
    /// A loss on pairs.
    Pair(fn(Value) -> Made<dyn Objective>),
    /// A loss on single answers with a label.
    Unpaired(fn(Value) -> Made<dyn UnpairedObjective>),
    /// A loss on pairs that is also one on single answers.
    Either(fn(Value) -> Made<dyn Objective>, fn(Value) -> Made<dyn UnpairedObjective>),
    /// A loss on lists of answers with gains.
    List(fn(Value) -> Made<dyn ListObjective>),
}

impl Build {
    /// The loss on pairs.
    pub fn pair(&self) -> Option<fn(Value) -> Made<dyn Objective>> {
        match self {
            Self::Pair(make) | Self::Either(make, _) => Some(*make),
            _ => None,
        }
    }

    /// The loss on single answers.
    pub fn unpaired(&self) -> Option<fn(Value) -> Made<dyn UnpairedObjective>> {
        match self {
            Self::Unpaired(make) | Self::Either(_, make) => Some(*make),
            _ => None,
        }
    }

    /// The shape of data: `paired`, `unpaired`, both or `list-wise`.
    pub fn takes(&self) -> &'static str {
        match self {
            Self::Pair(_) => "paired",
            Self::Either(..) => "paired or unpaired",
            Self::Unpaired(_) => "unpaired",
            Self::List(_) => "list-wise",
        }
    }
}

impl Entry {
    /// All options: its own, then those that every paired objective has.
    pub fn all_options(&self) -> impl Iterator<Item = &'static OptionDoc> {
        let shared = match self.build.pair() {
            Some(_) => modifier::OPTIONS,
            None => &[],
        };
        self.options.iter().chain(shared)
    }

    /// The complete options: `given` over the defaults.
    ///
    /// # Errors
    /// Unknown keys, values of the wrong type or out of range.
    pub fn resolve(&self, given: &Map<String, Value>) -> Result<Map<String, Value>, CoreError> {
        complete(self.name, &self.all_options().collect::<Vec<_>>(), given)
    }

    fn invalid(&self, error: serde_json::Error) -> CoreError {
        CoreError::InvalidOption {
            objective: self.name.into(),
            key: self.all_options().map(|option| option.key).collect::<Vec<_>>().join(", "),
            found: error.to_string(),
            expected: "values as documented".into(),
        }
    }

    /// By which of its (complete) options the objective multiplies log-ratios to make a reward of them, where it does.
    pub fn reward_scale(&self, options: &Map<String, Value>) -> Option<f64> {
        if let Some(first) = options.get("terms").and_then(|terms| terms.get(0)) {
            // A weighted sum reports the rewards of its first term.
            let term = entry(first.get("name")?.as_str()?).ok()?;
            let mut given = first.as_object()?.clone();
            given.retain(|key, _| !["name", "weight"].contains(&key.as_str()));
            return term.reward_scale(&term.resolve(&given).ok()?);
        }
        let has = |key: &&str| self.options.iter().any(|option| option.key == *key);
        // In a sequence of rounds `beta` is that of the first one.
        let key = if has(&"earlier") { "alpha" } else { ["beta", "tau"].into_iter().find(has)? };
        options.get(key)?.as_f64()
    }

    fn wrong_shape(&self, wanted: &'static str) -> CoreError {
        CoreError::WrongShape { name: self.name.into(), takes: self.build.takes(), wanted }
    }
}

/// `T` decoded from its complete options.
pub(crate) fn pair<T: DeserializeOwned + Objective + 'static>(options: Value) -> Made<dyn Objective> {
    Ok(Box::new(serde_json::from_value::<T>(options)?))
}

/// `T` decoded from its complete options.
pub(crate) fn unpaired<T: DeserializeOwned + UnpairedObjective + 'static>(
    options: Value,
) -> Made<dyn UnpairedObjective> {
    Ok(Box::new(serde_json::from_value::<T>(options)?))
}

/// `T` decoded from its complete options.
pub(crate) fn list<T: DeserializeOwned + ListObjective + 'static>(options: Value) -> Made<dyn ListObjective> {
    Ok(Box::new(serde_json::from_value::<T>(options)?))
}

/// The entry called `name`, also by the name that another trainer gives it.
///
/// # Errors
/// [`CoreError::UnknownObjective`] with the nearest name.
pub fn entry(name: &str) -> Result<&'static Entry, CoreError> {
    let plain = name.replace('_', "-");
    registry().iter().find(|entry| entry.name == plain || entry.aliases.contains(&plain.as_str())).ok_or_else(|| {
        CoreError::UnknownObjective {
            name: name.into(),
            nearest: nearest(name, registry().iter().map(|entry| entry.name)),
        }
    })
}

/// The paired objective `name` with `options` over its defaults.
///
/// # Errors
/// Unknown names and options, values of the wrong type or out of range, objectives that take other data.
pub fn build(name: &str, options: &Map<String, Value>) -> Result<Box<dyn Objective>, CoreError> {
    let entry = entry(name)?;
    let Some(make) = entry.build.pair() else {
        return Err(entry.wrong_shape("paired"));
    };
    let options = Value::Object(entry.resolve(options)?);
    let objective = make(options.clone()).map_err(|error| entry.invalid(error))?;
    objective.validate()?;
    Modified::wrap(entry, objective, options)
}

/// The unpaired objective `name` with `options` over its defaults.
///
/// # Errors
/// As [`build`].
pub fn build_unpaired(name: &str, options: &Map<String, Value>) -> Result<Box<dyn UnpairedObjective>, CoreError> {
    let entry = entry(name)?;
    let Some(make) = entry.build.unpaired() else {
        return Err(entry.wrong_shape("unpaired"));
    };
    let options = entry.resolve(options)?;
    if let (Build::Either(..), Some(option)) = (entry.build, modifier::switched_on(&options)) {
        return Err(CoreError::InvalidOption {
            objective: entry.name.into(),
            key: option.key.into(),
            found: options[option.key].to_string(),
            expected: format!("{}, its default, on unpaired data", option.default),
        });
    }
    make(Value::Object(options)).map_err(|error| entry.invalid(error))
}

/// The list-wise objective `name` with `options` over its defaults.
///
/// # Errors
/// As [`build`].
pub fn build_list(name: &str, options: &Map<String, Value>) -> Result<Box<dyn ListObjective>, CoreError> {
    let entry = entry(name)?;
    let Build::List(make) = entry.build else {
        return Err(entry.wrong_shape("list-wise"));
    };
    make(Value::Object(entry.resolve(options)?)).map_err(|error| entry.invalid(error))
}
