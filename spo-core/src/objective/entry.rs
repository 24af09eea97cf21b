//! What the registry says about one objective, and how it is made of its options.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::modifier;
use super::options::{OptionDoc, complete};
use super::{ListObjective, Needs, Objective, Registry, RewardObjective, UnpairedObjective};
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

/// An objective, or what is wrong with its options.
pub type Made<T> = Result<Box<T>, serde_json::Error>;

/// From options, and the registry that they may name others of.
pub type Make<T> = fn(Value, &Registry) -> Made<T>;

/// Makes an objective from its complete options. The registry is for objectives that name others; the functions
/// [`pair`], [`unpaired`](fn@unpaired), [`list`](fn@list) and [`reward`](fn@reward) make those that do not.
#[derive(Debug, Clone, Copy)]
pub enum Build {
    /// A loss on pairs.
    Pair(Make<dyn Objective>),
    /// A loss on single answers with a label.
    Unpaired(Make<dyn UnpairedObjective>),
    /// A loss on pairs that is also one on single answers.
    Either(Make<dyn Objective>, Make<dyn UnpairedObjective>),
    /// A loss on lists of answers with gains.
    List(Make<dyn ListObjective>),
    /// A loss on the rewards that a score head gives the answers of pairs.
    Reward(Make<dyn RewardObjective>),
    /// No loss on numbers of a model: what a scorer says of answers that the policy writes to prompts.
    Score,
}

impl Build {
    /// The loss on pairs.
    pub fn pair(&self) -> Option<Make<dyn Objective>> {
        match self {
            Self::Pair(make) | Self::Either(make, _) => Some(*make),
            _ => None,
        }
    }

    /// The loss on single answers.
    pub fn unpaired(&self) -> Option<Make<dyn UnpairedObjective>> {
        match self {
            Self::Unpaired(make) | Self::Either(_, make) => Some(*make),
            _ => None,
        }
    }

    /// The shape of data: `paired`, `unpaired`, both, `list-wise`, `pairwise reward` or `prompt`.
    pub fn takes(&self) -> &'static str {
        match self {
            Self::Pair(_) => "paired",
            Self::Either(..) => "paired or unpaired",
            Self::Unpaired(_) => "unpaired",
            Self::List(_) => "list-wise",
            Self::Reward(_) => "pairwise reward",
            Self::Score => "prompt",
        }
    }
}

impl Entry {
    /// An objective without a name, words or options, of which nothing is known but how it is made: for the rest of the
    /// fields.
    pub const fn new(build: Build) -> Self {
        Self {
            name: "",
            aliases: &[],
            formula: "",
            gradient: "",
            when: "",
            limits: "",
            paper: "",
            needs: Needs::POLICY,
            options: &[],
            difference_only: false,
            build,
        }
    }

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

    pub(super) fn invalid(&self, error: serde_json::Error) -> CoreError {
        CoreError::InvalidOption {
            objective: self.name.into(),
            key: self.all_options().map(|option| option.key).collect::<Vec<_>>().join(", "),
            found: error.to_string(),
            expected: "values as documented".into(),
        }
    }

    pub(crate) fn wrong_shape(&self, wanted: &'static str) -> CoreError {
        CoreError::WrongShape { name: self.name.into(), takes: self.build.takes(), wanted }
    }
}

/// `T` decoded from its complete options: `Build::Pair(pair::<T>)`.
///
/// # Errors
/// What serde finds wrong with them.
pub fn pair<T: DeserializeOwned + Objective + 'static>(options: Value, _: &Registry) -> Made<dyn Objective> {
    Ok(Box::new(serde_json::from_value::<T>(options)?))
}

/// `T` decoded from its complete options: `Build::Unpaired(unpaired::<T>)`.
///
/// # Errors
/// What serde finds wrong with them.
pub fn unpaired<T: DeserializeOwned + UnpairedObjective + 'static>(
    options: Value,
    _: &Registry,
) -> Made<dyn UnpairedObjective> {
    Ok(Box::new(serde_json::from_value::<T>(options)?))
}

/// `T` decoded from its complete options: `Build::List(list::<T>)`.
///
/// # Errors
/// What serde finds wrong with them.
pub fn list<T: DeserializeOwned + ListObjective + 'static>(options: Value, _: &Registry) -> Made<dyn ListObjective> {
    Ok(Box::new(serde_json::from_value::<T>(options)?))
}

/// `T` decoded from its complete options: `Build::Reward(reward::<T>)`.
///
/// # Errors
/// What serde finds wrong with them.
pub fn reward<T: DeserializeOwned + RewardObjective + 'static>(
    options: Value,
    _: &Registry,
) -> Made<dyn RewardObjective> {
    Ok(Box::new(serde_json::from_value::<T>(options)?))
}
