//! Typed access to the fields of a row, with errors that name the place.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::record::{AnswerText, Message, PromptText, Record};
use crate::{DataError, Preference};

/// Longest text that is kept as a tag: a label, not a document.
const MAX_TAG_BYTES: usize = 1000;

/// A row seen through a schema.
pub struct Row<'a> {
    /// File, for errors and ids.
    pub file: &'a str,
    /// Line, counted from 1.
    pub line: usize,
    /// The fields.
    pub fields: &'a Map<String, Value>,
    /// Name of the schema.
    pub schema: &'static str,
    /// Name for an unnamed dimension.
    pub dimension: &'a str,
}

impl Row<'_> {
    /// Whether the key is there and not null.
    pub fn has(&self, key: &str) -> bool {
        self.fields.get(key).is_some_and(|value| !value.is_null())
    }

    /// The value of a key.
    pub(super) fn value(&self, key: &str) -> Result<&Value, DataError> {
        self.fields.get(key).filter(|value| !value.is_null()).ok_or_else(|| {
            let found: Vec<String> = self.fields.keys().cloned().collect();
            DataError::MissingKey {
                file: self.file.to_string(),
                line: self.line,
                schema: self.schema,
                key: key.to_string(),
                found,
            }
        })
    }

    /// The error for a value that is not what it should be.
    pub(super) fn wrong(&self, key: &str, expected: &'static str, found: &Value) -> DataError {
        let mut found = found.to_string();
        if let Some((end, _)) = found.char_indices().nth(60) {
            found.truncate(end);
            found.push('…');
        }
        DataError::WrongValue {
            file: self.file.to_string(),
            line: self.line,
            schema: self.schema,
            key: key.to_string(),
            expected,
            found,
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<&str, DataError> {
        let value = self.value(key)?;
        value.as_str().ok_or_else(|| self.wrong(key, "text", value))
    }

    /// A number, also as text (CSV has only text).
    pub(super) fn number(&self, key: &str) -> Result<f64, DataError> {
        let value = self.value(key)?;
        number(value).ok_or_else(|| self.wrong(key, "a number", value))
    }

    pub(super) fn ids(&self, key: &str) -> Result<Vec<u32>, DataError> {
        let value = self.value(key)?;
        let id = |id: &Value| id.as_u64().and_then(|id| i32::try_from(id).ok()).map(|id| id as u32);
        value
            .as_array()
            .and_then(|ids| ids.iter().map(id).collect::<Option<Vec<_>>>())
            .ok_or_else(|| self.wrong(key, "a list of token ids", value))
    }

    /// Chat messages, each with a role.
    pub(super) fn messages(&self, key: &str) -> Result<Vec<Message>, DataError> {
        let value = self.value(key)?;
        self.as_messages(key, value)
    }

    pub(super) fn as_messages(&self, key: &str, value: &Value) -> Result<Vec<Message>, DataError> {
        <Vec<Message> as serde::Deserialize>::deserialize(value)
            .map_err(|_| self.wrong(key, "a list of messages with role and content", value))
    }

    /// Text or messages.
    pub(super) fn prompt(&self, key: &str) -> Result<PromptText, DataError> {
        match self.value(key)? {
            Value::Array(_) => self.messages(key).map(PromptText::Messages),
            Value::String(text) => Ok(PromptText::Text(text.clone())),
            other => Err(self.wrong(key, "text or messages", other)),
        }
    }

    /// Text or messages.
    pub(super) fn answer(&self, key: &str) -> Result<AnswerText, DataError> {
        let value = self.value(key)?;
        self.as_answer(key, value)
    }

    pub(super) fn as_answer(&self, key: &str, value: &Value) -> Result<AnswerText, DataError> {
        match value {
            Value::Array(_) => self.as_messages(key, value).map(AnswerText::Messages),
            Value::String(text) => Ok(AnswerText::Text(text.clone())),
            other => Err(self.wrong(key, "text or messages", other)),
        }
    }

    /// A record of this row; the text fields that `used` does not name become tags.
    pub(super) fn record(&self, prompt: PromptText, answers: Vec<AnswerText>, used: &[&str]) -> Record {
        let id = match self.fields.get("id") {
            Some(Value::String(id)) if !id.is_empty() => id.clone(),
            Some(Value::Number(id)) => id.to_string(),
            _ => format!("{}:{}", self.file, self.line),
        };
        let tag = |(key, value): (&String, &Value)| {
            let text = value.as_str().filter(|text| text.len() <= MAX_TAG_BYTES)?;
            let free = key != "id" && !used.contains(&key.as_str());
            free.then(|| (key.clone(), text.to_string()))
        };
        let variables = self.fields.get("chat_template_kwargs").and_then(Value::as_object);
        Record {
            id,
            prompt,
            answers,
            labels: BTreeMap::new(),
            scores: BTreeMap::new(),
            safe: Vec::new(),
            tags: self.fields.iter().filter_map(tag).collect(),
            tools: self.fields.get("tools").and_then(tools),
            variables: variables.cloned().unwrap_or_default(),
        }
    }

    /// As [`Row::record`], with the first answer preferred along the unnamed dimension.
    pub(super) fn chosen_first(
        &self,
        prompt: PromptText,
        chosen: AnswerText,
        rejected: AnswerText,
        used: &[&str],
    ) -> Record {
        let mut record = self.record(prompt, vec![chosen, rejected], used);
        record.labels.insert(self.dimension.to_string(), Preference::First);
        record
    }
}

/// A list of tools, or a text that holds one: columns of a table cannot hold tools of different forms.
fn tools(value: &Value) -> Option<Value> {
    match value {
        Value::Array(_) => Some(value.clone()),
        Value::String(text) => serde_json::from_str(text).ok().filter(Value::is_array),
        _ => None,
    }
}

/// A number or a text that is one.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| (*number as f32).is_finite())
}
