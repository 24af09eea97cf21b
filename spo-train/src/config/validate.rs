//! Checks a document against the JSON Schema of the run file, so that every fault has a position.

use serde_json::{Map, Value};

use super::document::{Content, Document, Node, Table};
use super::words::expected;
use crate::error::ConfigError;

/// Refuses the first key or value of `document` that `schema` (with all references inlined) does not allow.
pub(crate) fn validate(document: &Document, schema: &Value) -> Result<(), ConfigError> {
    Validator { document, schema }.check(&document.root, schema, "")
}

struct Validator<'a> {
    document: &'a Document,
    schema: &'a Value,
}

impl Validator<'_> {
    fn check(&self, node: &Node, schema: &Value, key: &str) -> Result<(), ConfigError> {
        let names = names(schema);
        match &node.content {
            Content::String(text) if !names.is_empty() => {
                return if names.contains(text) {
                    Ok(())
                } else {
                    Err(ConfigError::UnknownName {
                        at: self.document.place(&node.source),
                        key: key.to_owned(),
                        found: text.clone(),
                        known: names,
                    })
                };
            }
            _ => {}
        }
        if let Some(alternatives) = alternatives(schema) {
            return self.check_any(node, schema, alternatives, key);
        }
        if !allows(schema, node) {
            return Err(self.wrong(node, schema, key));
        }
        match &node.content {
            Content::Array(items) => self.check_items(node, items, schema, key),
            Content::Table(table) => self.check_table(node, table, schema, key),
            Content::Integer(integer) if !in_range(schema, *integer as f64) => Err(self.wrong(node, schema, key)),
            Content::Float(float) if !in_range(schema, *float) => Err(self.wrong(node, schema, key)),
            _ => Ok(()),
        }
    }

    /// The fault of the only alternative of the value's type says more than "none of these".
    fn check_any(&self, node: &Node, schema: &Value, alternatives: &[Value], key: &str) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        for alternative in alternatives {
            match self.check(node, alternative, key) {
                Ok(()) => return Ok(()),
                Err(fault) if allows(alternative, node) => faults.push(fault),
                Err(_) => {}
            }
        }
        match faults.pop() {
            // A name that is not on one alternative's list might be meant as another alternative.
            Some(fault) if faults.is_empty() && !matches!(fault, ConfigError::UnknownName { .. }) => Err(fault),
            _ => Err(self.wrong(node, schema, key)),
        }
    }

    fn check_items(&self, node: &Node, items: &[Node], schema: &Value, key: &str) -> Result<(), ConfigError> {
        let bound = |name: &str| schema[name].as_u64().map(|bound| bound as usize);
        if bound("minItems").is_some_and(|least| items.len() < least)
            || bound("maxItems").is_some_and(|most| items.len() > most)
        {
            return Err(self.wrong(node, schema, key));
        }
        let Some(item_schema) = schema.get("items") else {
            return Ok(());
        };
        items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| self.check(item, item_schema, &join(key, &index.to_string())))
    }

    fn check_table(&self, node: &Node, table: &Table, schema: &Value, key: &str) -> Result<(), ConfigError> {
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let additional = schema.get("additionalProperties");
        let section = || section(key);
        for (name, entry) in table {
            match (properties.get(name), additional) {
                (Some(_), _) | (None, None | Some(Value::Bool(true))) => {}
                // A misspelt key of another type is no further key.
                (None, Some(more @ Value::Object(_))) if properties.is_empty() || allows(more, &entry.node) => {}
                _ => {
                    return Err(ConfigError::UnknownKey {
                        at: self.document.place(&entry.key),
                        key: name.clone(),
                        section: section(),
                        known: properties.keys().cloned().collect(),
                        elsewhere: elsewhere(self.schema, name),
                    });
                }
            }
        }
        for (name, entry) in table {
            if let Some(schema) = properties.get(name).or(additional.filter(|more| more.is_object())) {
                self.check(&entry.node, schema, &join(key, name))?;
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap_or_default();
            if !table.contains_key(name) {
                return Err(ConfigError::MissingKey {
                    at: self.document.place(&node.source),
                    key: name.to_owned(),
                    section: section(),
                });
            }
        }
        Ok(())
    }

    fn wrong(&self, node: &Node, schema: &Value, key: &str) -> ConfigError {
        ConfigError::WrongValue {
            at: self.document.place(&node.source),
            key: key.to_owned(),
            found: node.describe(),
            expected: expected(schema),
            hint: hint(node, schema),
        }
    }
}

pub(crate) fn join(key: &str, name: &str) -> String {
    if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") }
}

fn section(key: &str) -> String {
    if key.is_empty() { "the run file".to_owned() } else { format!("`{key}`") }
}

/// Top-level sections that have `name` as a key.
fn elsewhere(schema: &Value, name: &str) -> Option<String> {
    let sections = schema["properties"].as_object()?;
    sections.iter().find_map(|(section, schema)| {
        let (keys, brackets) = match schema.get("items") {
            Some(items) => (&items["properties"], "[[]]"),
            None => (&schema["properties"], "[]"),
        };
        let (open, close) = brackets.split_at(brackets.len() / 2);
        keys.get(name).map(|_| format!("{open}{section}{close}"))
    })
}

pub(crate) fn alternatives(schema: &Value) -> Option<&[Value]> {
    schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array).map(Vec::as_slice)
}

/// The strings a schema allows, if it allows nothing else.
pub(crate) fn names(schema: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(list) = schema["enum"].as_array() {
        return list.iter().filter_map(text).collect();
    }
    if let Some(name) = schema.get("const") {
        return text(name).into_iter().collect();
    }
    let lists: Vec<Vec<String>> = alternatives(schema).into_iter().flatten().map(names).collect();
    if lists.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    lists.concat()
}

pub(crate) fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether the value is of (one of) the schema's types.
fn allows(schema: &Value, node: &Node) -> bool {
    let types = types(schema);
    let any = |names: &[&str]| types.is_empty() || names.iter().any(|name| types.contains(name));
    if let Some(alternatives) = alternatives(schema) {
        return alternatives.iter().any(|one| allows(one, node));
    }
    match &node.content {
        Content::String(_) => any(&["string"]),
        Content::Integer(_) => any(&["integer", "number"]),
        Content::Float(float) => float.is_finite() && any(&["number"]),
        Content::Boolean(_) => any(&["boolean"]),
        Content::Datetime(_) => false,
        Content::Array(_) => any(&["array"]),
        Content::Table(_) => any(&["object"]),
    }
}

fn in_range(schema: &Value, value: f64) -> bool {
    let bound = |name: &str| schema[name].as_f64();
    bound("minimum").is_none_or(|least| value >= least)
        && bound("maximum").is_none_or(|most| value <= most)
        && bound("exclusiveMinimum").is_none_or(|least| value > least)
        && bound("exclusiveMaximum").is_none_or(|most| value < most)
}

fn hint(node: &Node, schema: &Value) -> Option<String> {
    let types = types(schema);
    match &node.content {
        Content::String(text) if types.iter().any(|kind| ["integer", "number", "boolean"].contains(kind)) => {
            let plain = text.parse::<f64>().is_ok() || ["true", "false"].contains(&text.as_str());
            plain.then(|| format!("write it without quotes: {text}"))
        }
        Content::Table(_) if types.contains(&"array") => Some("a list of tables has double brackets: [[…]]".to_owned()),
        Content::Array(_) if types.contains(&"object") => Some("a single table has single brackets: […]".to_owned()),
        Content::Integer(_) | Content::Float(_) | Content::Boolean(_) | Content::Datetime(_)
            if types.contains(&"string") =>
        {
            Some("write it in quotes".to_owned())
        }
        _ => schema.get("default").map(|default| format!("without the key it is {default}")),
    }
}
