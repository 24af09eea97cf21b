//! Supervised rows: one answer, no labels.

use serde_json::Value;

use super::{Dimensions, Schema};
use crate::record::{AnswerText, PromptText};

pub(super) const PROMPT_COMPLETION: Schema = Schema {
    name: "sft",
    summary: "prompt and completion as text or messages",
    keys: &["prompt", "completion"],
    dimensions: Dimensions::None,
    recognise: |_| true,
    read: |row| {
        let answers = vec![row.answer("completion")?];
        Ok(row.record(row.prompt("prompt")?, answers, &["prompt", "completion"]))
    },
    merge: false,
};

pub(super) const MESSAGES: Schema = Schema {
    name: "messages",
    summary: "a conversation; its last assistant turn is the answer",
    keys: &["messages"],
    dimensions: Dimensions::None,
    recognise: |row| row.fields.get("messages").is_some_and(Value::is_array),
    read: |row| {
        let mut turns = row.messages("messages")?;
        match turns.pop() {
            Some(last) if last.role == "assistant" => {
                let answers = vec![AnswerText::Messages(vec![last])];
                Ok(row.record(PromptText::Messages(turns), answers, &["messages"]))
            }
            _ => Err(row.wrong("messages", "a conversation that ends with the assistant", row.value("messages")?)),
        }
    },
    merge: false,
};

pub(super) const TEXT: Schema = Schema {
    name: "text",
    summary: "plain text, all of it supervised",
    keys: &["text"],
    dimensions: Dimensions::None,
    recognise: |row| row.fields.get("text").is_some_and(Value::is_string),
    read: |row| {
        let answers = vec![AnswerText::Text(row.text("text")?.into())];
        Ok(row.record(PromptText::Text(String::new()), answers, &["text"]))
    },
    merge: false,
};
