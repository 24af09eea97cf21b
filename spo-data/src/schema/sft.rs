//! Supervised rows: one answer, no labels.

use serde_json::Value;

use super::{Dimensions, Row, Schema};
use crate::DataError;
use crate::record::{AnswerText, PromptText, Record};

pub(crate) const PROMPT_COMPLETION: Schema = Schema {
    name: "sft",
    summary: "prompt and completion as text or messages (also Alpaca's instruction, input and output)",
    keys: &["prompt", "completion"],
    dimensions: Dimensions::None,
    recognise: |_| true,
    read: |row| {
        let answers = vec![row.answer("completion")?];
        row.record(row.prompt("prompt")?, answers, &["prompt", "completion"])
    },
    merge: false,
};

pub(crate) const MESSAGES: Schema = Schema {
    name: "messages",
    summary: "a conversation (also ShareGPT's conversations); its last assistant turn is the answer",
    keys: &["messages"],
    dimensions: Dimensions::None,
    recognise: has_messages,
    read: |row| conversation(row, &["messages"]),
    merge: false,
};

pub(crate) const TEXT: Schema = Schema {
    name: "text",
    summary: "plain text, all of it supervised",
    keys: &["text"],
    dimensions: Dimensions::None,
    recognise: |row| row.text("text").is_ok(),
    read: |row| {
        let answers = vec![AnswerText::Text(row.text("text")?.into())];
        row.bare_record(PromptText::Text(String::new()), answers, &["text"])
    },
    merge: false,
};

pub(super) fn has_messages(row: &Row) -> bool {
    row.nested("messages").is_ok_and(|value| value.as_array().is_some_and(|turns| turns.iter().all(Value::is_object)))
}

/// The last assistant turn of a conversation with what precedes it. Turns after it stay with the answer, so that the
/// report names them.
pub(super) fn conversation(row: &Row, used: &[&str]) -> Result<Record, DataError> {
    let mut turns = row.messages("messages")?;
    let last = turns.iter().rposition(|turn| turn.role == "assistant").unwrap_or(turns.len());
    let answer = turns.split_off(last);
    row.record(PromptText::Messages(turns), vec![AnswerText::Messages(answer)], used)
}
