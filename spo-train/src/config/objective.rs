//! What the run file needs to know of the objective registry.

use serde_json::{Map, Value, json};
use spo_core::objective::{Build, Entry, OptionDoc, Registry};
use spo_core::{CoreError, Needs};

use super::plan::DataShape;
use super::resolve::DimensionRows;

/// Options that the resolver fills in from the rounds before; no user key. (So is `beta` of an objective that has them:
/// it stands for round 1's beta.)
const COMPUTED: &[&str] = &["earlier"];

/// Names of all objectives, those that other trainers use included.
pub(crate) fn names(registry: &Registry) -> Vec<String> {
    let entries = registry.iter();
    entries.flat_map(|entry| std::iter::once(&entry.name).chain(entry.aliases)).map(|name| (*name).to_owned()).collect()
}

/// The registry's own name for an objective.
pub(crate) fn canonical(registry: &Registry, name: &str) -> String {
    registry.entry(name).map_or_else(|_| name.to_owned(), |entry| entry.name.to_owned())
}

/// The options a user may write for one objective.
pub(crate) fn options(registry: &Registry, name: &str) -> impl Iterator<Item = &'static OptionDoc> + use<> {
    let sequential = holds_earlier(registry, name);
    all_options(registry, name).filter(move |option| {
        let round_one = sequential && option.key == "beta";
        !round_one && !COMPUTED.contains(&option.key)
    })
}

/// Whether the objective holds the rewards of earlier rounds.
pub(crate) fn holds_earlier(registry: &Registry, name: &str) -> bool {
    all_options(registry, name).any(|option| option.key == "earlier")
}

/// Whether the objective makes a reward model.
pub(crate) fn gives_rewards(registry: &Registry, name: &str) -> bool {
    registry.entry(name).is_ok_and(|entry| matches!(entry.build, Build::Reward(_)))
}

/// Whether the objective is what a scorer says of answers that the policy writes.
pub(crate) fn is_score(registry: &Registry, name: &str) -> bool {
    registry.entry(name).is_ok_and(|entry| matches!(entry.build, Build::Score))
}

/// All options of an objective, `given` over the defaults, checked.
pub(crate) fn complete(
    registry: &Registry,
    name: &str,
    given: &Map<String, Value>,
) -> Result<Map<String, Value>, CoreError> {
    let entry = registry.entry(name)?;
    match entry.build {
        Build::Pair(_) | Build::Either(..) => drop(registry.build(name, given)?),
        Build::Unpaired(_) => drop(registry.build_unpaired(name, given)?),
        Build::List(_) => drop(registry.build_list(name, given)?),
        Build::Reward(_) => drop(registry.build_reward(name, given)?),
        Build::Score => {}
    }
    let mut options = entry.resolve(given)?;
    options.retain(|_, value| !value.is_null());
    Ok(options)
}

/// The shape of data that the objective takes of a dimension with these rows.
pub(crate) fn shape(registry: &Registry, name: &str, rows: DimensionRows) -> DataShape {
    match registry.entry(name).map(|entry| entry.build) {
        Ok(Build::Unpaired(_)) => DataShape::Answers,
        Ok(Build::List(_)) => DataShape::Lists,
        Ok(Build::Score) => DataShape::Prompts,
        // A dimension that has answers beside those of its pairs would lose them as pairs.
        Ok(Build::Either(..)) if rows.answers > 2 * rows.pairs => DataShape::Answers,
        _ => DataShape::Pairs,
    }
}

/// What a round computes or keeps besides the policy in training, in words, with what it costs.
pub(crate) fn inputs(
    registry: &Registry,
    name: &str,
    options: &Map<String, Value>,
    shape: DataShape,
    model_bytes: Option<usize>,
) -> Result<Vec<String>, CoreError> {
    let reference = || "log-probs of the reference, cached".to_owned();
    let at_once =
        || "all rows of a batch at once: one more forward pass where they take several micro-batches".to_owned();
    let needs = match shape {
        DataShape::Lists => return Ok(vec![reference()]),
        DataShape::Prompts => {
            let words = "answers of the policy to the step's prompts at both sides of each direction, and a scorer's opinion of them";
            return Ok(vec![words.into()]);
        }
        DataShape::Answers => {
            let objective = registry.build_unpaired(name, options)?;
            let mut words = vec![reference()];
            if objective.needs_kl() {
                words.push("KL on mismatched prompts and answers: one more forward pass per step".into());
            }
            words.extend(objective.whole_batch().then(at_once));
            return Ok(words);
        }
        DataShape::Pairs if gives_rewards(registry, name) => {
            let objective = registry.build_reward(name, options)?;
            let mut words = vec!["a score head, trained in full".to_owned()];
            words.extend(objective.needs_strengths().then(|| "strengths: differences of the data's scores".into()));
            words.extend(objective.takes_ties().then(|| "rows labelled as ties".into()));
            words.extend(
                objective.critique().map(|_| "critiques: the rows' `chosen_critique` and `rejected_critique`".into()),
            );
            return Ok(words);
        }
        DataShape::Pairs => registry.build(name, options)?.needs(),
    };
    let degrees = if shape == DataShape::Pairs { registry.build(name, options)?.degrees() } else { None };
    let Needs { reference: of_reference, history, earlier, mixture, sequence_kl, sampled, .. } = needs;
    let mut words = Vec::new();
    words.extend((of_reference && !history && earlier == 0).then(reference));
    words.extend((history || earlier > 0 || mixture).then(|| "log-probs of earlier policies, cached".into()));
    words.extend(needs.strengths.then(|| "strengths: differences of the data's scores".into()));
    words.extend(needs.safety.then(|| "safety labels of the data".into()));
    words.extend(needs.on_policy.then(|| "on-policy weights: the head runs once more".into()));
    words.extend(needs.length_desensitising.map(|_| "log-probs of shortened answers, cached".into()));
    words
        .extend(sampled.then(|| "an answer of the reference to each prompt, drawn before the round and cached".into()));
    words.extend(sequence_kl.then(|| match model_bytes {
        Some(bytes) => format!("the reference's distributions: it stays in memory, {:.1} MB more", bytes as f64 / 1e6),
        None => "the reference's distributions: it stays in memory".into(),
    }));
    words.extend(needs.whole_batch.then(at_once));
    words.extend(degrees.map(|degrees| match (degrees.loss.classifies(), degrees.count - 1) {
        (true, more) => {
            format!("{more} more answers per pair, and a head of {} scores that is not kept", degrees.count)
        }
        (false, _) => "one more answer per pair, the reference's log-probs of it cached".into(),
    }));
    Ok(words)
}

fn all_options(registry: &Registry, name: &str) -> impl Iterator<Item = &'static OptionDoc> + use<> {
    let entry = registry.entry(name).ok();
    entry.into_iter().flat_map(Entry::all_options)
}

/// The options of all objectives as properties of a JSON Schema.
pub(crate) fn properties(registry: &Registry) -> Map<String, Value> {
    let mut properties: Map<String, Value> = Map::new();
    for entry in registry.iter() {
        for option in options(registry, entry.name) {
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
