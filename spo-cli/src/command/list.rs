//! `spo list`

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use spo_core::objective::{OptionDoc, modifier, registry};
use spo_data::Registry;
use spo_model::device::{self, COMPILED};
use spo_model::family::FAMILIES;
use spo_model::merge::METHODS;
use spo_train::config::Registries;

use crate::error::CliError;
use crate::output::Output;

/// List what this program knows
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(value_enum)]
    what: What,
    /// A JSON list of objects
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Losses with formula, options, defaults and paper
    Objectives,
    /// Options that every paired objective takes beside its own, preference degrees among them
    PairOptions,
    /// What changes the weights, with the keys of each
    Optimizers,
    /// Model families
    Families,
    /// Layouts of rows
    Schemas,
    /// File formats
    Formats,
    /// Kinds of scorers with their options
    Scorers,
    /// Ways to make one policy for many preferences: what it is conditioned on, and how it is told
    Conditions,
    /// Ways of `spo merge` to make one model of several
    Merges,
    /// Kinds of devices in this build, and whether each works here
    Devices,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let items = match self.what {
            What::Objectives => objectives(),
            What::PairOptions => pair_options(),
            What::Optimizers => optimizers(),
            What::Families => {
                FAMILIES.iter().map(|family| json!({ "name": family.name, "about": family.about })).collect()
            }
            What::Schemas => Registry::builtin()
                .schemas()
                .iter()
                .map(|schema| json!({ "name": schema.name, "about": schema.summary, "keys": schema.keys }))
                .collect(),
            What::Formats => Registry::builtin()
                .formats()
                .iter()
                .map(|format| json!({ "name": format.name, "about": format.summary, "extensions": format.extensions }))
                .collect(),
            What::Scorers => scorers(),
            What::Conditions => conditions(),
            What::Merges => METHODS
                .iter()
                .map(|method| json!({ "name": method.name, "about": method.formula, "paper": method.paper }))
                .collect(),
            What::Devices => devices(),
        };
        if self.json {
            return output.pretty_json(&items);
        }
        items.iter().try_for_each(|item| show(item, output))
    }
}

fn option(option: &OptionDoc) -> Value {
    json!({
        "key": option.key,
        "default": option.default_value(),
        "expected": option.expected(),
        "meaning": option.meaning,
        "source": option.source,
    })
}

fn pair_options() -> Vec<Value> {
    let named = |doc: &OptionDoc| {
        let (mut item, about) = (option(doc), format!("{}; default {}: {}", doc.expected(), doc.default, doc.source));
        item["name"] = doc.key.into();
        item["about"] = format!("{} ({about})", doc.meaning).into();
        item
    };
    modifier::OPTIONS.iter().map(named).collect()
}

/// What docs/conditional.md is about.
fn conditions() -> Vec<Value> {
    let ways = [
        (
            "weights",
            "`[lora] condition = \"weights\"`",
            "--weights",
            "an adapter for every weighting of the dimensions (PBLoRA)",
        ),
        (
            "steering",
            "`[steering]`",
            "--steer",
            "a vector made of a few labelled pairs scales and shifts every block, or weighs adapters (NP-DPO)",
        ),
        (
            "meta-prompts",
            "`[[data]] meta-prompts`",
            "--meta",
            "a text before the prompt asks for a dimension (MetaAlign)",
        ),
        ("goals", "`spo data goals`", "--goals", "scores in the prompt are goals (rewards in context)"),
    ];
    let item = |(name, trained, told, about): (&str, &str, &str, &str)| json!({ "name": name, "about": format!("{about}; trained by {trained}, told by {told}"), "trained": trained, "told": told });
    ways.into_iter().map(item).collect()
}

/// The names and keys that the run file's schema has.
fn optimizers() -> Vec<Value> {
    let schema = spo_train::config::schema::json_schema(&Registries::default());
    let training = &schema["properties"]["training"]["properties"];
    let keys = |prefix: &str| -> Vec<&String> {
        let all = training.as_object().into_iter().flatten();
        all.map(|(key, _)| key).filter(|key| key.starts_with(prefix)).collect()
    };
    let item = |one: &Value| {
        let keys = match one["const"].as_str() {
            Some("adamw") => [keys("adam-"), keys("weight-"), keys("max-grad-")].concat(),
            Some("mezo") => {
                keys("zo-").into_iter().filter(|key| !["zo-rank", "zo-refresh"].contains(&key.as_str())).collect()
            }
            _ => keys("zo-"),
        };
        let about = one["description"].as_str().unwrap_or_default().replace('\n', " ");
        json!({ "name": one["const"], "about": about, "keys": keys })
    };
    training["optimizer"]["oneOf"].as_array().into_iter().flatten().map(item).collect()
}

fn objectives() -> Vec<Value> {
    let entry = |entry: &spo_core::objective::Entry| {
        json!({
            "name": entry.name,
            "aliases": entry.aliases,
            "takes": entry.build.takes(),
            "formula": entry.formula,
            "gradient": entry.gradient,
            "needs": entry.needs.words(),
            "when": entry.when,
            "limits": entry.limits,
            "paper": entry.paper,
            "options": entry.options.iter().map(option).collect::<Vec<_>>(),
        })
    };
    registry().iter().map(entry).collect()
}

fn scorers() -> Vec<Value> {
    let entry = |entry: &spo_score::Entry| {
        let schema = (entry.options)();
        let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let option = |(key, about): (&String, &Value)| {
            let default = match required.iter().any(|name| name == key) {
                true => "required".into(),
                false => about.get("default").cloned().unwrap_or_default(),
            };
            json!({ "key": key, "default": default, "meaning": about["description"] })
        };
        json!({
            "name": entry.name,
            "about": entry.summary,
            "example": entry.example,
            "options": properties.iter().map(option).collect::<Vec<_>>(),
        })
    };
    spo_score::Registry::builtin().entries().iter().map(entry).collect()
}

fn devices() -> Vec<Value> {
    let state = |name: &&str| match device::open(name) {
        Ok(_) => json!({ "name": name, "about": "works", "works": true }),
        Err(error) => json!({ "name": name, "about": error.to_string(), "works": false }),
    };
    COMPILED.iter().map(state).collect()
}

/// A name with its facts below it.
fn show(item: &Value, output: &mut Output) -> Result<(), CliError> {
    let Some(about) = item["about"].as_str() else {
        return show_objective(item, output);
    };
    output.line(format_args!("{:<18} {about}", word(&item["name"])))?;
    for key in ["keys", "extensions", "example", "paper"].into_iter().filter(|key| !item[*key].is_null()) {
        output.line(format_args!("{:<18} {key}: {}", "", word(&item[key])))?;
    }
    show_options(item, output)
}

fn show_objective(item: &Value, output: &mut Output) -> Result<(), CliError> {
    output.line(format_args!("{} ({})", word(&item["name"]), word(&item["takes"])))?;
    output.line(format_args!("  loss    {}", word(&item["formula"])))?;
    for key in ["needs", "when", "limits", "paper"] {
        let text = word(&item[key]);
        if !text.is_empty() {
            output.line(format_args!("  {key:<7} {text}"))?;
        }
    }
    show_options(item, output)?;
    output.line("")
}

fn show_options(item: &Value, output: &mut Output) -> Result<(), CliError> {
    for option in item["options"].as_array().into_iter().flatten() {
        let [key, default, meaning] = ["key", "default", "meaning"].map(|field| word(&option[field]));
        let default = if default == "null" { "none".to_owned() } else { default };
        output.line(format_args!("  {key} = {default}: {}", meaning.replace('\n', " ")))?;
    }
    Ok(())
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
