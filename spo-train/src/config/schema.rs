//! The JSON Schema of the run file: made from the types, shipped for editors, and used to check run files.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use spo_core::objective::Registry;

use super::registries::{Known, Registries};
use super::spec::RunSections;
use super::{defaults, objective};

/// The JSON Schema (draft 2020-12) of run files that may name what the registries hold, all references inlined.
pub fn json_schema(registries: &Registries) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<RunSections>();
    let mut schema = clean(schema.to_value());
    schema["title"] = json!("Run file of spo");
    let round = &mut schema["properties"]["rounds"]["items"];
    add_options(round, &registries.objectives);
    add_options(&mut round["properties"]["controls"]["items"], &registries.objectives);
    let data = &mut schema["properties"]["data"]["items"]["properties"];
    data["format"]["enum"] = registries.data.formats().iter().map(|format| format.name).collect();
    data["schema"]["enum"] = registries.data.schemas().iter().map(|layout| layout.name).collect();
    add_defaults(&mut schema);
    close(&mut schema);
    schema
}

/// The content of docs/run.schema.json.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(checked_schema()).expect("JSON can be written");
    text.push('\n');
    text
}

/// The schema of what the libraries of this workspace hold.
pub(crate) fn checked_schema() -> &'static Value {
    &Known::builtin().schema
}

/// The keys of a section: those of its type.
pub(crate) fn section_keys(section: &str) -> Vec<&'static str> {
    let keys = checked_schema()["properties"][section]["properties"].as_object();
    keys.expect("every section is a table").keys().map(String::as_str).collect()
}

/// TOML has no null: what may be null is what may be absent.
fn clean(schema: Value) -> Value {
    match schema {
        Value::Object(mut table) => {
            if let Some(Value::Array(types)) = table.get_mut("type") {
                types.retain(|name| name != "null");
                if types.len() == 1 {
                    table["type"] = types[0].take();
                }
            }
            for word in ["anyOf", "oneOf"] {
                let Some(Value::Array(mut alternatives)) = table.remove(word) else {
                    continue;
                };
                alternatives.retain(|one| one["type"] != "null");
                if alternatives.len() == 1 {
                    if let Some(Value::Object(only)) = alternatives.pop() {
                        // The field's own text says more than its type's.
                        for (key, value) in only {
                            table.entry(key).or_insert(value);
                        }
                    }
                } else {
                    table.insert(word.to_owned(), Value::Array(alternatives));
                }
            }
            if table.get("default").is_some_and(Value::is_null) {
                table.remove("default");
            }
            table.into_iter().map(|(key, value)| (key, clean(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(clean).collect(),
        plain => plain,
    }
}

fn add_options(table: &mut Value, objectives: &Registry) {
    let Some(properties) = table["properties"].as_object_mut() else {
        return;
    };
    properties.extend(objective::properties(objectives));
    properties["objective"]["enum"] = json!(objective::names(objectives));
}

fn add_defaults(schema: &mut Value) {
    for (section, defaults) in defaults::sections() {
        let table = match section {
            "" => &mut *schema,
            _ => &mut schema["properties"][section],
        };
        for (key, default) in defaults {
            if let Some(property) = table["properties"].get_mut(&key) {
                property["default"] = default;
            }
        }
    }
    let rounds = &mut schema["properties"]["rounds"]["items"]["properties"];
    for (key, default) in defaults::table(&defaults::online()) {
        rounds["online"]["properties"][&key]["default"] = default;
    }
    for (key, default) in defaults::table(&defaults::hold()) {
        rounds["controls"]["items"]["properties"]["hold"]["properties"][&key]["default"] = default.clone();
        rounds["hold"]["properties"][&key]["default"] = default;
    }
}

/// Every table with listed keys admits no others.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(table) => {
            if table.get("properties").is_some_and(Value::is_object)
                && table.get("type").is_some_and(|kind| kind == "object")
            {
                table.remove("unevaluatedProperties");
                // Gates and holds have dimensions as further keys.
                if !table.get("additionalProperties").is_some_and(Value::is_object) {
                    table.insert("additionalProperties".to_owned(), Value::Bool(false));
                }
            }
            table.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
