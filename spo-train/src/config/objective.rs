//! What the run file needs to know of the objective registry.

use serde_json::{Map, Value, json};
use spo_core::CoreError;
use spo_core::objective::{self, Entry, OptionDoc};

/// Options that the resolver fills in from the rounds before; no user key. (So is `beta` of an objective that has them:
/// it stands for round 1's beta.)
const COMPUTED: &[&str] = &["earlier"];

/// Names of all objectives, those that other trainers use included.
pub(crate) fn names() -> Vec<String> {
    let entries = objective::registry().iter();
    entries.flat_map(|entry| std::iter::once(&entry.name).chain(entry.aliases)).map(|name| (*name).to_owned()).collect()
}

/// The registry's own name for an objective.
pub(crate) fn canonical(name: &str) -> String {
    objective::entry(name).map_or_else(|_| name.to_owned(), |entry| entry.name.to_owned())
}

/// The options a user may write for one objective.
pub(crate) fn options(name: &str) -> impl Iterator<Item = &'static OptionDoc> {
    let sequential = holds_earlier(name);
    all_options(name).filter(move |option| {
        let round_one = sequential && option.key == "beta";
        !round_one && !COMPUTED.contains(&option.key)
    })
}

/// Whether the objective holds the rewards of earlier rounds.
pub(crate) fn holds_earlier(name: &str) -> bool {
    all_options(name).any(|option| option.key == "earlier")
}

/// All options of an objective, `given` over the defaults, checked.
pub(crate) fn complete(name: &str, given: &Map<String, Value>) -> Result<Map<String, Value>, CoreError> {
    objective::build(name, given)?;
    let mut options = objective::entry(name)?.resolve(given)?;
    options.retain(|_, value| !value.is_null());
    Ok(options)
}

fn all_options(name: &str) -> impl Iterator<Item = &'static OptionDoc> {
    let entry = objective::entry(name).ok();
    entry.into_iter().flat_map(Entry::all_options)
}

/// The options of all objectives as properties of a JSON Schema.
pub(crate) fn properties() -> Map<String, Value> {
    let mut properties: Map<String, Value> = Map::new();
    for entry in objective::registry() {
        for option in options(entry.name) {
            let property = properties.entry(option.key).or_insert_with(|| json!({ "description": "" }));
            describe(property, entry.name, option);
        }
    }
    // A round may name its λ per dimension; the resolver turns that into one number per earlier round.
    if let Some(lambda) = properties.get_mut("lambda") {
        lambda["anyOf"] = json!([
            { "type": "number", "minimum": 0 },
            { "type": "object", "additionalProperties": { "type": "number", "minimum": 0 } },
        ]);
    }
    properties
}

fn describe(property: &mut Value, objective: &str, option: &OptionDoc) {
    let default = match option.default_value() {
        Value::Null => String::new(),
        default => format!(", default {default}"),
    };
    let text = property["description"].as_str().unwrap_or_default();
    let separator = if text.is_empty() { "" } else { " " };
    let text = format!("{text}{separator}`{objective}`: {}{default}.", option.meaning.trim_end_matches('.'));
    property["description"] = Value::String(text);
}
