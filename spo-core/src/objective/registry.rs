//! Objectives by name: a value, to which other crates add their own.

use serde_json::{Map, Value};

use super::modifier::{self, Modified};
use super::options::nearest;
use super::{Build, Entry, ListObjective, Objective, RewardObjective, UnpairedObjective};
use crate::CoreError;

/// Every objective of this crate, one line each.
static BUILTIN: &[Entry] = &[
    super::spo::ENTRY,
    super::dpo::ENTRY,
    super::cdpo::ENTRY,
    super::robust::ENTRY,
    super::ipo::ENTRY,
    super::hinge::ENTRY,
    super::exo::ENTRY,
    super::nca::ENTRY,
    super::bco::ENTRY,
    super::sppo_hard::ENTRY,
    super::aot::PAIRED,
    super::aot::UNPAIRED,
    super::apo::ZERO,
    super::apo::DOWN,
    super::discopop::ENTRY,
    super::sigmoid_norm::ENTRY,
    super::sft::ENTRY,
    super::orpo::ENTRY,
    super::simpo::ENTRY,
    super::cpo::ENTRY,
    super::alpha_po::ENTRY,
    super::chi_po::ENTRY,
    super::r_dpo::ENTRY,
    super::dpop::ENTRY,
    super::dpo_shift::ENTRY,
    super::tdpo::FIRST,
    super::tdpo::SECOND,
    super::modpo::ENTRY,
    super::mm_dpo::ENTRY,
    super::mrpo::ENTRY,
    super::selm::ENTRY,
    super::bfpo::ENTRY,
    super::safe_dpo::ENTRY,
    super::weighted_sum::ENTRY,
    super::kto::ENTRY,
    super::kto::APO_ZERO_UNPAIRED,
    super::opo::ENTRY,
    super::plackett_luce::ENTRY,
    super::bradley_terry::ENTRY,
    super::score::ENTRY,
];

/// The objectives of this crate.
pub fn registry() -> &'static [Entry] {
    BUILTIN
}

/// Objectives by name. [`build`] and its like use [`Registry::builtin`]; the methods of the same names use this one.
///
/// ```
/// use burn::tensor::Device;
/// use serde::Deserialize;
/// use spo_core::objective::{Build, Entry, OptionDoc, Ratios, Registry, pair};
/// use spo_core::{CoreError, Needs, Objective, PairLogps, PairLosses, PairNumbers, Sides, differentiate};
///
/// static SQUARE: Entry = Entry {
///     name: "square",
///     formula: "(β·d − 1)²",
///     needs: Needs::REFERENCE,
///     options: &[OptionDoc { key: "beta", default: "0.1", meaning: "factor β of the margin", ..OptionDoc::POSITIVE }],
///     ..Entry::new(Build::Pair(pair::<Square>))
/// };
///
/// #[derive(Debug, Deserialize)]
/// struct Square {
///     beta: f64,
/// }
///
/// impl Objective for Square {
///     fn name(&self) -> &'static str {
///         SQUARE.name
///     }
///
///     fn needs(&self) -> Needs {
///         SQUARE.needs
///     }
///
///     fn forward(&self, logps: &PairLogps) -> Result<PairLosses, CoreError> {
///         let ratios = Ratios::new(self.name(), logps)?;
///         let per_pair = (ratios.delta() * self.beta - 1.0).powi_scalar(2);
///         Ok(ratios.losses(per_pair, self.beta))
///     }
/// }
///
/// let square = Registry::builtin().add(&SQUARE).build("square", &Default::default())?;
/// let mut pairs = PairNumbers::new(vec![-12.0], vec![-15.0]);
/// pairs.reference = Some(Sides { chosen: vec![-12.0], rejected: vec![-15.0] });
/// assert_eq!(differentiate(square.as_ref(), &pairs, &Device::flex())?.losses, [1.0]);
/// # Ok::<(), CoreError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Registry {
    entries: Vec<&'static Entry>,
}

/// Registries are equal when they hold the same names.
impl PartialEq for Registry {
    fn eq(&self, other: &Self) -> bool {
        self.iter().map(|entry| entry.name).eq(other.iter().map(|entry| entry.name))
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Registry {
    /// The objectives of this crate.
    pub fn builtin() -> Self {
        Self { entries: BUILTIN.iter().collect() }
    }

    /// With one more objective, which takes the place of one that has its name.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "entries are added, not numbers")]
    pub fn add(mut self, entry: &'static Entry) -> Self {
        self.entries.retain(|other| other.name != entry.name);
        self.entries.push(entry);
        self
    }

    /// All objectives.
    pub fn iter(&self) -> impl Iterator<Item = &'static Entry> + '_ {
        self.entries.iter().copied()
    }

    /// The entry called `name`, also by the name that another trainer gives it.
    ///
    /// # Errors
    /// [`CoreError::UnknownObjective`] with the nearest name.
    pub fn entry(&self, name: &str) -> Result<&'static Entry, CoreError> {
        let plain = name.replace('_', "-");
        let called = |entry: &&Entry| entry.name == plain;
        let known = |entry: &&Entry| entry.aliases.contains(&plain.as_str());
        self.iter().find(called).or_else(|| self.iter().find(known)).ok_or_else(|| CoreError::UnknownObjective {
            name: name.into(),
            nearest: nearest(name, self.iter().map(|entry| entry.name)),
        })
    }

    /// The paired objective `name` with `options` over its defaults.
    ///
    /// # Errors
    /// Unknown names and options, values of the wrong type or out of range, objectives that take other data.
    pub fn build(&self, name: &str, options: &Map<String, Value>) -> Result<Box<dyn Objective>, CoreError> {
        let entry = self.entry(name)?;
        let Some(make) = entry.build.pair() else {
            return Err(entry.wrong_shape("paired"));
        };
        let options = Value::Object(entry.resolve(options)?);
        let objective = make(options.clone(), self).map_err(|error| entry.invalid(error))?;
        objective.validate()?;
        Modified::wrap(entry, objective, options)
    }

    /// The unpaired objective `name` with `options` over its defaults.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_unpaired(
        &self,
        name: &str,
        options: &Map<String, Value>,
    ) -> Result<Box<dyn UnpairedObjective>, CoreError> {
        let entry = self.entry(name)?;
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
        make(Value::Object(options), self).map_err(|error| entry.invalid(error))
    }

    /// The list-wise objective `name` with `options` over its defaults.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_list(&self, name: &str, options: &Map<String, Value>) -> Result<Box<dyn ListObjective>, CoreError> {
        let entry = self.entry(name)?;
        let Build::List(make) = entry.build else {
            return Err(entry.wrong_shape("list-wise"));
        };
        make(Value::Object(entry.resolve(options)?), self).map_err(|error| entry.invalid(error))
    }

    /// The objective `name` on rewards with `options` over its defaults.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_reward(
        &self,
        name: &str,
        options: &Map<String, Value>,
    ) -> Result<Box<dyn RewardObjective>, CoreError> {
        let entry = self.entry(name)?;
        let Build::Reward(make) = entry.build else {
            return Err(entry.wrong_shape("pairwise reward"));
        };
        make(Value::Object(entry.resolve(options)?), self).map_err(|error| entry.invalid(error))
    }

    /// By which of its (complete) options the objective `name` multiplies log-ratios to make a reward of them, where it
    /// does.
    pub fn reward_scale(&self, name: &str, options: &Map<String, Value>) -> Option<f64> {
        let entry = self.entry(name).ok()?;
        if let Some(first) = options.get("terms").and_then(|terms| terms.get(0)) {
            // A weighted sum reports the rewards of its first term.
            let name = first.get("name")?.as_str()?;
            let mut given = first.as_object()?.clone();
            given.retain(|key, _| !["name", "weight"].contains(&key.as_str()));
            return self.reward_scale(name, &self.entry(name).ok()?.resolve(&given).ok()?);
        }
        let has = |key: &&str| entry.options.iter().any(|option| option.key == *key);
        // In a sequence of rounds `beta` is that of the first one.
        let key = if has(&"earlier") { "alpha" } else { ["beta", "tau"].into_iter().find(has)? };
        options.get(key)?.as_f64()
    }
}

/// As [`Registry::entry`] of the objectives of this crate.
///
/// # Errors
/// As there.
pub fn entry(name: &str) -> Result<&'static Entry, CoreError> {
    Registry::builtin().entry(name)
}

/// As [`Registry::build`] of the objectives of this crate.
///
/// # Errors
/// As there.
pub fn build(name: &str, options: &Map<String, Value>) -> Result<Box<dyn Objective>, CoreError> {
    Registry::builtin().build(name, options)
}

/// As [`Registry::build_unpaired`] of the objectives of this crate.
///
/// # Errors
/// As there.
pub fn build_unpaired(name: &str, options: &Map<String, Value>) -> Result<Box<dyn UnpairedObjective>, CoreError> {
    Registry::builtin().build_unpaired(name, options)
}

/// As [`Registry::build_list`] of the objectives of this crate.
///
/// # Errors
/// As there.
pub fn build_list(name: &str, options: &Map<String, Value>) -> Result<Box<dyn ListObjective>, CoreError> {
    Registry::builtin().build_list(name, options)
}

/// As [`Registry::build_reward`] of the objectives of this crate.
///
/// # Errors
/// As there.
pub fn build_reward(name: &str, options: &Map<String, Value>) -> Result<Box<dyn RewardObjective>, CoreError> {
    Registry::builtin().build_reward(name, options)
}
