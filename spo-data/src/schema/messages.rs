//! Conversations as files write them: role and content, ShareGPT's from and value, transcripts.

use serde_json::{Map, Value, json};

use super::row::nested_text;
use crate::record::Message;

/// Other names of the roles that templates know.
const ROLES: &[(&str, &[&str])] = &[
    ("user", &["user", "human", "prompter"]),
    ("assistant", &["assistant", "gpt", "chatgpt", "bing", "bard", "ai", "bot", "model"]),
    ("system", &["system"]),
    ("tool", &["observation", "function_response", "tool_response"]),
];
/// ShareGPT's name of a turn that calls a tool.
const CALL: &str = "function_call";
const SPEAKERS: [(&str, &str); 2] = [("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];

/// Whether an object is one message.
pub(super) fn is_message(value: &Value) -> bool {
    value.get("role").is_some_and(Value::is_string) || value.get("from").is_some_and(Value::is_string)
}

/// A list of messages, or one; `None` where something is no message of text.
pub(super) fn parse(value: &Value) -> Option<Vec<Message>> {
    match value {
        Value::Array(turns) => turns.iter().map(message).collect(),
        one => message(one).map(|message| vec![message]),
    }
}

fn message(value: &Value) -> Option<Message> {
    let Value::Object(fields) = without_nulls(value) else { return None };
    let said = !fields.contains_key("role");
    if said && fields.contains_key("content") {
        return None;
    }
    let name = |key: String| match key.as_str() {
        "from" if said => "role".to_string(),
        "value" if said => "content".to_string(),
        _ => key,
    };
    let mut fields: Map<String, Value> = fields.into_iter().map(|(key, value)| (name(key), value)).collect();
    let role = fields.get("role")?.as_str()?.to_string();
    if role == CALL {
        call(&mut fields)?;
    } else if let Some((known, _)) = ROLES.iter().find(|(_, names)| names.contains(&role.to_lowercase().as_str())) {
        fields.insert("role".into(), (*known).into());
    }
    // Columns cannot hold calls of different forms: they are a text then.
    if let Some(calls) = fields.get("tool_calls").and_then(Value::as_str).and_then(nested_text) {
        fields.insert("tool_calls".into(), calls);
    }
    let message = Message::try_from(fields).ok()?;
    is_text(&message.content).then_some(message)
}

/// Text, parts of text, or nothing.
fn is_text(content: &Value) -> bool {
    match content {
        Value::Null | Value::String(_) => true,
        Value::Array(parts) => parts.iter().all(is_text_part),
        _ => false,
    }
}

fn is_text_part(part: &Value) -> bool {
    let kind = part.get("type").is_none_or(|kind| kind == "text" || kind.is_null());
    kind && part.get("text").is_some_and(Value::is_string)
}

/// The first part of a message's content that is no text: an image, sound, a document.
pub(super) fn other_part(value: &Value) -> Option<&Value> {
    let turns = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let contents = turns.iter().filter_map(|turn| turn.get("content").or_else(|| turn.get("value")));
    contents.filter_map(Value::as_array).flatten().find(|part| !is_text_part(part))
}

/// Makes a tool call of a turn whose content is `{"name": …, "arguments": …}` as text.
fn call(fields: &mut Map<String, Value>) -> Option<()> {
    let function: Value = serde_json::from_str(fields.get("content")?.as_str()?).ok()?;
    function.get("name")?;
    fields.insert("role".into(), "assistant".into());
    fields.insert("content".into(), "".into());
    fields.insert("tool_calls".into(), json!([{ "type": "function", "function": function }]));
    Some(())
}

/// The value without the null fields of its objects: a column of objects has the fields of all rows.
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        Value::Object(fields) => {
            let there = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(there.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        plain => plain.clone(),
    }
}

/// Whether a text is a transcript of a human and an assistant.
pub(super) fn is_transcript(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with("Human:") && text.contains(SPEAKERS[1].0)
}

/// Turns of a transcript, with or without blank lines before it, without the one space after a speaker's name.
pub(super) fn transcript(text: &str) -> Option<Vec<Message>> {
    let whole = format!("\n\n{}", text.trim_start());
    let mut rest = whole.as_str();
    let mut turns = Vec::new();
    while !rest.is_empty() {
        let (name, role) = SPEAKERS.iter().find(|(name, _)| rest.starts_with(name))?;
        let body = &rest[name.len()..];
        let end = SPEAKERS.iter().filter_map(|(name, _)| body.find(name)).min().unwrap_or(body.len());
        let text = &body[..end];
        turns.push(Message::new(role, text.strip_prefix(' ').unwrap_or(text)));
        rest = &body[end..];
    }
    Some(turns)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_in_several_forms() {
        let user = Message::new("user", "Hi");
        for value in [
            json!({"role": "user", "content": "Hi", "tool_calls": null}),
            json!([{"from": "human", "value": "Hi"}]),
            json!([{"role": "human", "content": "Hi"}]),
        ] {
            assert_eq!(parse(&value).unwrap(), std::slice::from_ref(&user), "{value}");
        }
        let called = parse(&json!({"from": "function_call", "value": "{\"name\": \"now\", \"arguments\": {}}"}));
        assert_eq!(called.unwrap()[0].fields["tool_calls"][0]["function"]["name"], "now");
        for value in [json!({"role": "user", "content": 5}), json!([{"role": "user", "content": [{"type": "image"}]}])]
        {
            assert_eq!(parse(&value), None, "{value}");
        }
    }

    #[test]
    fn transcripts_may_begin_without_blank_lines() {
        let expected = [Message::new("user", "Bye"), Message::new("assistant", "See you")];
        for text in ["\n\nHuman: Bye\n\nAssistant: See you", "Human: Bye\n\nAssistant: See you"] {
            assert!(is_transcript(text));
            assert_eq!(transcript(text).unwrap(), expected);
        }
        assert_eq!(transcript("Human says\n\nAssistant: x"), None);
    }
}
