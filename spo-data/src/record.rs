//! A row before tokenisation: what a schema makes of a file's fields.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Preference;

/// A chat message: `role`, `content` and whatever else the template may read (`tool_calls`, `name`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`.
    pub role: String,
    /// The text, usually a string; templates for several media take a list of parts.
    #[serde(default)]
    pub content: Value,
    /// Further fields, handed to the template as they are.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Message {
    /// A text message.
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.into(), content: content.into(), fields: Map::new() }
    }

    /// The text of the message; text parts are joined.
    pub fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
            _ => String::new(),
        }
    }
}

/// A prompt as a user writes it.
#[derive(Debug, Clone, PartialEq)]
pub enum PromptText {
    /// One user turn, or the raw beginning of a text.
    Text(String),
    /// A conversation that an assistant turn follows.
    Messages(Vec<Message>),
    /// Token ids, taken as they are.
    Ids(Vec<u32>),
}

impl Default for PromptText {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// An answer as a user writes it.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerText {
    /// The assistant's text.
    Text(String),
    /// One or more messages.
    Messages(Vec<Message>),
    /// Token ids, taken as they are: no terminator is added.
    Ids(Vec<u32>),
}

impl AnswerText {
    /// Whether nothing would be scored.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.trim().is_empty(),
            Self::Messages(messages) => messages
                .iter()
                .all(|message| message.text().trim().is_empty() && !message.fields.contains_key("tool_calls")),
            Self::Ids(ids) => ids.is_empty(),
        }
    }
}

/// One row with its fields understood, not yet tokenised.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// The row's own id or its place.
    pub id: String,
    /// System message for a prompt that has none.
    pub system: Option<String>,
    /// The prompt.
    pub prompt: PromptText,
    /// The answers.
    pub answers: Vec<AnswerText>,
    /// As [`crate::Example::labels`].
    pub labels: BTreeMap<String, Preference>,
    /// As [`crate::Example::scores`].
    pub scores: BTreeMap<String, Vec<f32>>,
    /// As [`crate::Example::safe`].
    pub safe: Vec<bool>,
    /// As [`crate::Example::tags`].
    pub tags: BTreeMap<String, String>,
    /// Tool descriptions for the chat template.
    pub tools: Option<Value>,
    /// Further template variables (`chat_template_kwargs`).
    pub variables: Map<String, Value>,
}
