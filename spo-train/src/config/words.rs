//! A schema in the words of an error message.

use serde_json::Value;

use super::validate::{alternatives, names, types};

/// What a schema accepts, in words.
pub(crate) fn expected(schema: &Value) -> String {
    let names = names(schema);
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        return names.join(" or ");
    }
    if let Some(alternatives) = alternatives(schema) {
        let words: Vec<String> = alternatives.iter().map(expected).collect();
        return words.join(" or ");
    }
    let words: Vec<String> = types(schema).iter().map(|name| expected_type(name, schema)).collect();
    if words.is_empty() { "any value".to_owned() } else { words.join(" or ") }
}

fn expected_type(name: &str, schema: &Value) -> String {
    match name {
        "string" => "a string".to_owned(),
        "boolean" => "true or false".to_owned(),
        "integer" => format!("an integer{}", range(schema)),
        "number" => format!("a number{}", range(schema)),
        "array" => {
            let count = match (schema["minItems"].as_u64(), schema["maxItems"].as_u64()) {
                (Some(least), Some(most)) if least == most => format!("{least} "),
                (Some(1), _) => "one or more ".to_owned(),
                (Some(least), _) => format!("{least} or more "),
                _ => String::new(),
            };
            let item = &schema["items"];
            let items = match types(item)[..] {
                ["string"] => "strings".to_owned(),
                ["integer"] => format!("integers{}", range(item)),
                ["number"] => format!("numbers{}", range(item)),
                ["object"] => "tables".to_owned(),
                _ => "values".to_owned(),
            };
            format!("a list of {count}{items}")
        }
        _ => "a table".to_owned(),
    }
}

fn range(schema: &Value) -> String {
    let bound = |name: &str| schema.get(name).filter(|bound| bound.is_number());
    let mut words = Vec::new();
    if let (Some(least), Some(most)) = (bound("minimum"), bound("maximum")) {
        return format!(" from {least} to {most}");
    }
    if let Some(least) = bound("minimum") {
        words.push(format!("of at least {least}"));
    }
    if let Some(least) = bound("exclusiveMinimum") {
        words.push(format!("above {least}"));
    }
    if let Some(most) = bound("maximum") {
        words.push(format!("of at most {most}"));
    }
    if let Some(most) = bound("exclusiveMaximum") {
        words.push(format!("below {most}"));
    }
    if words.is_empty() { String::new() } else { format!(" {}", words.join(" and ")) }
}
