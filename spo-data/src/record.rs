//! A row before tokenisation: what a schema makes of a file's fields.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Preference, SourceRow};

/// A chat message: `role`, `content` and whatever else the template may read (`tool_calls`, `name`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`.
    pub role: String,
    /// The text, usually a string; templates for several media take a list of parts. Null where there is none.
    pub content: Value,
    /// Further fields, handed to the template as they are.
    pub fields: Map<String, Value>,
    /// The names of all fields in the order in which they were read: a template may print a whole message.
    order: Vec<String>,
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        (&self.role, &self.content, &self.fields) == (&other.role, &other.content, &other.fields)
    }
}

impl TryFrom<Map<String, Value>> for Message {
    type Error = String;

    fn try_from(mut fields: Map<String, Value>) -> Result<Self, String> {
        let order = fields.keys().cloned().collect();
        let role = match fields.shift_remove("role") {
            Some(Value::String(role)) => role,
            Some(_) => return Err("the role of a message is not a text".into()),
            None => return Err("missing field `role`".into()),
        };
        let content = fields.shift_remove("content").unwrap_or_default();
        Ok(Self { role, content, fields, order })
    }
}

impl From<Message> for Map<String, Value> {
    fn from(message: Message) -> Self {
        message.fields()
    }
}

impl Message {
    /// A text message.
    pub fn new(role: &str, content: &str) -> Self {
        let order = vec!["role".into(), "content".into()];
        Self { role: role.into(), content: content.into(), fields: Map::new(), order }
    }

    /// All fields as they were read, `content` only where there was one or is one now.
    pub fn fields(&self) -> Map<String, Value> {
        let field = |name: &String| {
            let value = match name.as_str() {
                "role" => Value::from(self.role.as_str()),
                "content" => self.content.clone(),
                _ => self.fields.get(name)?.clone(),
            };
            Some((name.clone(), value))
        };
        let mut all: Map<String, Value> = self.order.iter().filter_map(field).collect();
        if !self.content.is_null() && !all.contains_key("content") {
            all.insert("content".into(), self.content.clone());
        }
        for (name, value) in &self.fields {
            if !all.contains_key(name) {
                all.insert(name.clone(), value.clone());
            }
        }
        all
    }

    /// The arguments of its tool calls, and of `function_call`, OpenAI's older form.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &Value> {
        let calls = self.fields.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
        let functions = calls.map(|call| call.get("function").unwrap_or(call)).chain(self.fields.get("function_call"));
        functions.filter_map(|function| function.get("arguments"))
    }

    /// The same to be changed.
    pub(crate) fn arguments_mut(&mut self) -> Vec<&mut Value> {
        let mut found = vec![];
        for (name, value) in &mut self.fields {
            let functions: Vec<&mut Value> = match (name.as_str(), value) {
                ("tool_calls", Value::Array(calls)) => calls.iter_mut().map(function).collect(),
                ("function_call", call) => vec![call],
                _ => continue,
            };
            found.extend(functions.into_iter().filter_map(|function| function.get_mut("arguments")));
        }
        found
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

/// What a tool call calls: in an object of its own, or beside the other fields.
fn function(call: &mut Value) -> &mut Value {
    match call.get("function").is_some() {
        true => &mut call["function"],
        false => call,
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

impl PromptText {
    /// As JSON: a text, a list of messages, or a list of token ids.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Messages(turns) => turns.iter().cloned().map(|turn| Value::Object(turn.into())).collect(),
            Self::Ids(ids) => ids.clone().into(),
        }
    }

    /// What [`PromptText::to_json`] wrote, but for token ids; `None` where it is neither text nor messages.
    pub fn of_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Array(_) => serde_json::from_value(value.clone()).ok().map(Self::Messages),
            _ => None,
        }
    }
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
    /// As JSON: a text, a list of messages, or a list of token ids.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Messages(turns) => turns.iter().cloned().map(|turn| Value::Object(turn.into())).collect(),
            Self::Ids(ids) => ids.clone().into(),
        }
    }

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
    /// As [`crate::Example::source`].
    pub source: Option<SourceRow>,
}
