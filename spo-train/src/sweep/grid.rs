//! What the runs of a sweep set: a grid of values, and orders of the dimensions.

use crate::config::spec::{Dimensions, RoundSpec};
use crate::config::{ConfigError, RunSpec};
use serde_json::Value;

/// One key with its values, as given on the command line: `rounds.1.lambda=0,0.25,0.5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// Dotted key of the run file.
    pub key: String,
    /// Values as TOML.
    pub values: Vec<String>,
}

impl Axis {
    /// Reads an axis. Commas inside of brackets, braces and quotes do not separate.
    ///
    /// # Errors
    /// What is wrong, in words: no `=`, an empty value, a value twice.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (key, values) = text.split_once('=').ok_or_else(|| format!("{text:?} has no `=`"))?;
        let (mut parts, mut depth, mut quote) = (vec![String::new()], 0usize, None);
        for letter in values.chars() {
            match (quote, letter) {
                (Some(open), letter) if letter == open => quote = None,
                (None, '"' | '\'') => quote = Some(letter),
                (None, '[' | '{') => depth += 1,
                (None, ']' | '}') => depth = depth.saturating_sub(1),
                (None, ',') if depth == 0 => {
                    parts.push(String::new());
                    continue;
                }
                _ => {}
            }
            parts.last_mut().expect("there is one part at least").push(letter);
        }
        let values: Vec<String> = parts.iter().map(|part| part.trim().to_owned()).collect();
        if values.iter().any(String::is_empty) {
            return Err(format!("{text:?} has an empty value"));
        }
        if let Some(twice) =
            values.iter().enumerate().find_map(|(at, value)| values[..at].contains(value).then_some(value))
        {
            return Err(format!("{text:?} has {twice} twice"));
        }
        Ok(Self { key: key.trim().to_owned(), values })
    }
}

/// One run of a sweep.
#[derive(Debug, Clone)]
pub struct Variant {
    /// Directory name.
    pub name: String,
    /// What sets it apart.
    pub settings: Vec<(String, String)>,
    /// The run file with these settings.
    pub spec: RunSpec,
}

/// All runs of a sweep, the last axis varying fastest.
///
/// # Errors
/// A key or value that the run file does not take.
pub fn variants(spec: &RunSpec, axes: &[Axis], all_orders: bool) -> Result<Vec<Variant>, ConfigError> {
    let mut variants = if all_orders {
        orders(spec)?
    } else {
        vec![Variant { name: String::new(), settings: vec![], spec: spec.clone() }]
    };
    for axis in axes {
        let mut next = vec![];
        for variant in &variants {
            for value in &axis.values {
                let mut varied = variant.clone();
                varied.spec.apply_set(&format!("{}={value}", axis.key))?;
                varied.settings.push((axis.key.clone(), value.clone()));
                next.push(varied);
            }
        }
        variants = next;
    }
    for variant in &mut variants {
        let short = |(key, value): &(String, String)| format!("{}={value}", short_key(key, axes));
        let name = variant.settings.iter().map(short).collect::<Vec<_>>().join("_");
        variant.name = if name.is_empty() { "run".to_owned() } else { directory(&name) };
    }
    Ok(variants)
}

/// The last part of a key, if that tells it from the other axes.
fn short_key<'k>(key: &'k str, axes: &[Axis]) -> &'k str {
    let last = key.rsplit('.').next().unwrap_or(key);
    let alike = axes.iter().filter(|axis| axis.key.rsplit('.').next() == Some(last)).count();
    if alike > 1 { key } else { last }
}

fn directory(name: &str) -> String {
    let plain = |letter: char| if letter.is_alphanumeric() || "-_.+=".contains(letter) { letter } else { '-' };
    name.chars().map(plain).collect()
}

/// The run file with its dimensions in every order. Everything else of a round stays at its place: the second round
/// keeps its α and λ, whichever dimension it learns.
pub(super) fn orders(spec: &RunSpec) -> Result<Vec<Variant>, ConfigError> {
    let rounds = &spec.sections().rounds;
    if let [RoundSpec { dimension: Dimensions::Several(names), .. }] = &rounds[..] {
        let settings = vec![("order".to_owned(), names.join("-"))];
        return Ok(vec![Variant { name: String::new(), settings, spec: spec.clone() }]);
    }
    if let Some(index) = rounds.iter().position(|round| matches!(round.dimension, Dimensions::Several(_))) {
        let message = "a list of dimensions beside other rounds has no place in an order of single ones";
        let hint = "`cumulative = true` with one dimension learns the earlier ones too, in every order";
        return Err(spec.refused(&format!("rounds.{index}.dimension"), message.to_owned(), Some(hint.to_owned())));
    }
    let written: Vec<&str> = rounds.iter().flat_map(|round| round.dimension.names()).map(String::as_str).collect();
    let mut orders: Vec<Vec<&str>> = vec![vec![]];
    for _ in &written {
        let longer = orders.iter().flat_map(|order| {
            let left = |name: &&&str| {
                let count = |list: &[&str]| list.iter().filter(|other| *other == *name).count();
                count(order) < count(&written)
            };
            let mut candidates: Vec<&str> = written.iter().filter(left).copied().collect();
            let mut seen: Vec<&str> = vec![];
            candidates.retain(|name| {
                let new = !seen.contains(name);
                seen.push(name);
                new
            });
            candidates.into_iter().map(|name| [order.as_slice(), &[name]].concat()).collect::<Vec<_>>()
        });
        orders = longer.collect();
    }
    let variant = |order: Vec<&str>| {
        let mut varied = spec.clone();
        for (index, name) in order.iter().enumerate() {
            varied.apply_set(&format!("rounds.{index}.dimension={}", Value::from(*name)))?;
        }
        // The warm-up is the same before every order.
        if spec.sections().warmup.as_ref().is_some_and(|warmup| warmup.dimensions.is_none()) {
            let mut names = written.clone();
            names.sort_unstable();
            names.dedup();
            varied.apply_set(&format!("warmup.dimensions={}", Value::from(names)))?;
        }
        // λ that names earlier dimensions follows their places.
        let renamed = |options: &serde_json::Map<String, Value>| {
            let Some(Value::Object(table)) = options.get("lambda") else { return None };
            let place = |name: &str| {
                let at = written.iter().position(|other| *other == name);
                at.map_or(name.to_owned(), |at| order[at].to_owned())
            };
            let pairs: Vec<String> =
                table.iter().map(|(name, value)| format!("{} = {value}", Value::from(place(name)))).collect();
            Some(format!("{{ {} }}", pairs.join(", ")))
        };
        for (index, round) in rounds.iter().enumerate() {
            if let Some(table) = renamed(&round.options) {
                varied.apply_set(&format!("rounds.{index}.lambda={table}"))?;
            }
            for (arm, control) in round.controls.iter().flatten().enumerate() {
                if let Some(table) = renamed(&control.options) {
                    varied.apply_set(&format!("rounds.{index}.controls.{arm}.lambda={table}"))?;
                }
            }
        }
        let order = order.join("-");
        Ok(Variant { name: String::new(), settings: vec![("order".to_owned(), order)], spec: varied })
    };
    orders.into_iter().map(variant).collect()
}
