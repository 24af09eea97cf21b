//! What a row holds and the text that is tokenised does not: fields of messages, tools, reasoning that a template drops.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::record::{AnswerText, Message, PromptText, Record};

/// Fields that name other things than text: kinds and links between a call and its result.
const LINKS: [&str; 4] = ["role", "type", "id", "tool_call_id"];

/// Fields whose text a model should see; a row without one of them is incomplete.
const TEXTS: [&str; 9] = [
    "content",
    "reasoning_content",
    "reasoning",
    "thinking",
    "tool_calls",
    "function_call",
    "arguments",
    "tools",
    "system",
];

/// Names of what is in a record and in none of its texts: fields of messages, `tools`, `system`. `texts` are prompt and
/// answer, as many as there are answers.
pub(crate) fn unrendered(record: &Record, system: Option<&str>, texts: &[String]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut check = |name: &str, value: &Value, text: &str| {
        if !shows(text, value) {
            names.insert(name.to_string());
        }
    };
    let first = texts.first().map_or("", String::as_str);
    if let PromptText::Messages(turns) = &record.prompt {
        turns.iter().flat_map(fields).for_each(|(name, value)| check(&name, &value, first));
    }
    for (answer, text) in record.answers.iter().zip(texts) {
        let AnswerText::Messages(turns) = answer else { continue };
        turns.iter().flat_map(fields).for_each(|(name, value)| check(&name, &value, text));
    }
    if let Some(tools) = &record.tools {
        check("tools", tools, first);
    }
    if let Some(system) = system {
        check("system", &Value::from(system), first);
    }
    names
}

/// Whether a name of [`unrendered`] is text that a model should see.
pub(crate) fn is_text(name: &str) -> bool {
    TEXTS.contains(&name)
}

/// Whether the arguments of some call are a text with an object in it that a template has quoted once more.
pub(crate) fn quotes_arguments(record: &Record, texts: &[String]) -> bool {
    let prompt = match &record.prompt {
        PromptText::Messages(turns) => turns.as_slice(),
        _ => &[],
    };
    let answers = record.answers.iter().filter_map(|answer| match answer {
        AnswerText::Messages(turns) => Some(turns.as_slice()),
        _ => None,
    });
    let mut written = answers.chain([prompt]).flatten().flat_map(Message::arguments).filter_map(Value::as_str);
    written.any(|arguments| {
        let quoted = Value::from(arguments).to_string();
        let object = serde_json::from_str::<Value>(arguments).is_ok_and(|value| value.is_object());
        // Without a quote in it the text is the same inside and outside.
        object && quoted.contains('\\') && texts.iter().any(|text| text.contains(&quoted))
    })
}

fn fields(message: &Message) -> impl Iterator<Item = (String, Value)> {
    message.fields().into_iter().filter(|(name, _)| !LINKS.contains(&name.as_str()))
}

/// Whether all text of a value is in a text: line by line, without the space around, as it stands or as JSON or Python writes
/// it between quotes.
fn shows(text: &str, value: &Value) -> bool {
    match value {
        Value::String(own) => {
            let own = own.trim();
            text.contains(own) || own.lines().map(str::trim).all(|line| shows_line(text, line))
        }
        Value::Array(items) => items.iter().all(|item| shows(text, item)),
        Value::Object(fields) => fields.iter().all(|(name, item)| LINKS.contains(&name.as_str()) || shows(text, item)),
        _ => true,
    }
}

fn shows_line(text: &str, line: &str) -> bool {
    let quoted = |line: &str| Value::from(line).to_string();
    // Arguments that are a text come out as an object's text where they are parsed, and the other way round.
    let parsed = || serde_json::from_str::<Value>(line).is_ok_and(|value| !value.is_string() && shows(text, &value));
    text.contains(line)
        || text.contains(quoted(line).trim_matches('"'))
        || text.contains(&line.replace('\\', "\\\\").replace('\'', "\\'"))
        || ((line.starts_with('{') || line.starts_with('[')) && parsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_counts_however_it_is_quoted() {
        let text = "a \"b\\\"c\\n\" it\\'s {\"city\": \"Oslo\"} two\n lines";
        for shown in [json!("b\"c"), json!(" a "), json!("it's"), json!("two\nlines"), json!(3), json!(null), json!("")]
        {
            assert!(shows(text, &shown), "{shown}");
        }
        for shown in [json!("{\"city\":\"Oslo\"}"), json!([{"type": "nowhere", "id": "x", "city": "Oslo"}])] {
            assert!(shows(text, &shown), "{shown}");
        }
        for hidden in [json!("d"), json!({"city": "Bern"}), json!(["a", "Bern"]), json!("{\"city\":\"Bern\"}")] {
            assert!(!shows(text, &hidden), "{hidden}");
        }
    }
}
