//! Typed access to the fields of a row, with errors that name the place, and a note of what was read.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::lost::repeats;
use super::messages::{self, without_nulls};
use super::names::aliases;
use crate::format::python;
use crate::record::{AnswerText, Message, PromptText, Record};
use crate::{DataError, Preference};

/// Longest text that is kept as a tag: a label, not a document.
const MAX_TAG_BYTES: usize = 1000;

/// A row seen through a schema. What a schema asks for counts as read; the rest is named to the user.
pub struct Row<'a> {
    /// File, for errors and ids.
    pub file: &'a str,
    /// Line, counted from 1.
    pub line: usize,
    /// Name of the schema.
    pub schema: &'static str,
    /// Name for an unnamed dimension.
    pub dimension: &'a str,
    fields: &'a Map<String, Value>,
    read: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Row<'a> {
    /// A row of which nothing was read yet.
    pub fn new(
        file: &'a str,
        line: usize,
        fields: &'a Map<String, Value>,
        schema: &'static str,
        dimension: &'a str,
    ) -> Self {
        Self { file, line, schema, dimension, fields, read: RefCell::default() }
    }

    /// The column that has the value of a key: its own or one of another known name (`question` for `prompt`).
    pub fn column(&self, key: &str) -> Option<&'a str> {
        let there = |name: &str| {
            let (name, value) = self.fields.get_key_value(name)?;
            (!value.is_null()).then_some(name.as_str())
        };
        there(key).or_else(|| aliases(key).iter().find_map(|name| there(name)))
    }

    /// Whether the key is there and not null.
    pub fn has(&self, key: &str) -> bool {
        self.column(key).is_some()
    }

    /// Counts a column as read.
    pub(super) fn mark(&self, key: &str) {
        if let Some((name, _)) = self.fields.get_key_value(key) {
            self.read.borrow_mut().insert(name);
        }
    }

    /// Counts a column as read whose text is in the record already.
    pub(super) fn mark_repeated(&self, key: &str, record: &Record) {
        if let Some(column) = self.column(key).filter(|column| repeats(&self.fields[*column], record)) {
            self.read.borrow_mut().insert(column);
        }
    }

    /// Columns with a value that nobody read.
    pub(crate) fn unread(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        let read = self.read.borrow().clone();
        self.fields.iter().filter(move |(name, value)| !is_nothing(value) && !read.contains(name.as_str()))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When it is absent or null.
    pub fn value(&self, key: &str) -> Result<&'a Value, DataError> {
        let Some(column) = self.column(key) else {
            return Err(DataError::MissingKey {
                file: self.file.to_string(),
                line: self.line,
                schema: self.schema,
                key: key.to_string(),
                null: self.fields.contains_key(key) || aliases(key).iter().any(|name| self.fields.contains_key(*name)),
                found: self.fields.keys().cloned().collect(),
            });
        };
        self.read.borrow_mut().insert(column);
        Ok(&self.fields[column])
    }

    /// The value of a key that is a list or an object, or a text that holds one as JSON or as Python writes it.
    ///
    /// # Errors
    /// As [`Row::value`].
    pub fn nested(&self, key: &str) -> Result<Cow<'a, Value>, DataError> {
        let value = self.value(key)?;
        Ok(value.as_str().and_then(nested_text).map_or(Cow::Borrowed(value), Cow::Owned))
    }

    /// The error for a value that is not what it should be.
    pub fn wrong(&self, key: &str, expected: &'static str, found: &Value) -> DataError {
        let mut found = found.to_string();
        if let Some((end, _)) = found.char_indices().nth(60) {
            found.truncate(end);
            found.push('…');
        }
        DataError::WrongValue {
            file: self.file.to_string(),
            line: self.line,
            schema: self.schema,
            key: self.column(key).unwrap_or(key).to_string(),
            expected,
            found,
        }
    }

    /// A text.
    ///
    /// # Errors
    /// When the key is absent or holds something else.
    pub fn text(&self, key: &str) -> Result<&'a str, DataError> {
        let value = self.value(key)?;
        value.as_str().ok_or_else(|| self.wrong(key, "text", value))
    }

    /// A number, also as text (CSV has only text).
    ///
    /// # Errors
    /// When the key is absent or holds something else.
    pub fn number(&self, key: &str) -> Result<f64, DataError> {
        let value = self.value(key)?;
        number(value).ok_or_else(|| self.wrong(key, "a number", value))
    }

    /// True or false, also as 1 or 0 or as text.
    ///
    /// # Errors
    /// When the key is absent or holds something else.
    pub fn truth(&self, key: &str) -> Result<bool, DataError> {
        let value = self.value(key)?;
        truth(value).ok_or_else(|| self.wrong(key, "true or false", value))
    }

    /// Token ids.
    ///
    /// # Errors
    /// When the key is absent or holds something else.
    pub fn ids(&self, key: &str) -> Result<Vec<u32>, DataError> {
        let value = self.nested(key)?;
        let id = |id: &Value| id.as_u64().and_then(|id| i32::try_from(id).ok()).map(|id| id as u32);
        value
            .as_array()
            .and_then(|ids| ids.iter().map(id).collect::<Option<Vec<_>>>())
            .ok_or_else(|| self.wrong(key, "a list of token ids", &value))
    }

    /// A list.
    ///
    /// # Errors
    /// When the key is absent or holds something else.
    pub fn list(&self, key: &str) -> Result<Vec<Value>, DataError> {
        match self.nested(key)?.into_owned() {
            Value::Array(list) => Ok(list),
            other => Err(self.wrong(key, "a list", &other)),
        }
    }

    /// Chat messages, each with a role.
    ///
    /// # Errors
    /// When the key is absent or holds something else.
    pub fn messages(&self, key: &str) -> Result<Vec<Message>, DataError> {
        let value = self.nested(key)?;
        self.as_messages(key, &value)
    }

    fn as_messages(&self, key: &str, value: &Value) -> Result<Vec<Message>, DataError> {
        let expected = "a list of messages with role and content (or from and value) of text";
        messages::parse(value).ok_or_else(|| match messages::other_part(value) {
            Some(part) => self.wrong(key, "text, or parts of text: images, sound and files are not read", part),
            None => self.wrong(key, expected, value),
        })
    }

    /// Text or messages; an `instruction` with its `input` and `history`.
    ///
    /// # Errors
    /// When the key is absent or holds something else.
    pub fn prompt(&self, key: &str) -> Result<PromptText, DataError> {
        let value = self.value(key)?;
        let prompt = match self.as_answer(key, value)? {
            AnswerText::Messages(turns) => PromptText::Messages(turns),
            AnswerText::Text(text) => PromptText::Text(text),
            AnswerText::Ids(ids) => PromptText::Ids(ids),
        };
        match prompt {
            PromptText::Messages(turns) if turns.last().is_some_and(|turn| turn.role == "assistant") => {
                Err(self.wrong(key, "a conversation that an assistant turn follows", value))
            }
            PromptText::Text(text) if self.column(key) == Some("instruction") => self.instruction(text),
            prompt => Ok(prompt),
        }
    }

    /// Alpaca's and LLaMA-Factory's prompt: `instruction`, a line break, `input`; before it the turns of `history`.
    fn instruction(&self, mut text: String) -> Result<PromptText, DataError> {
        if self.has("input") {
            let input = self.text("input")?;
            text += if input.is_empty() || text.is_empty() { "" } else { "\n" };
            text += input;
        }
        if self.fields.get("history").is_none_or(is_nothing) {
            return Ok(PromptText::Text(text));
        }
        let history = self.nested("history")?;
        let wrong = || self.wrong("history", "a list of [question, answer]", &history);
        let mut turns = Vec::new();
        for pair in history.as_array().ok_or_else(wrong)? {
            let [Some(question), Some(answer)] = [0, 1].map(|index| pair.get(index).and_then(Value::as_str)) else {
                return Err(wrong());
            };
            turns.extend([Message::new("user", question), Message::new("assistant", answer)]);
        }
        turns.push(Message::new("user", &text));
        Ok(PromptText::Messages(turns))
    }

    /// Text, messages or one message.
    ///
    /// # Errors
    /// When the key is absent or holds something else.
    pub fn answer(&self, key: &str) -> Result<AnswerText, DataError> {
        let value = self.value(key)?;
        self.as_answer(key, value)
    }

    /// As [`Row::answer`], of a value inside that of `key`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn as_answer(&self, key: &str, value: &Value) -> Result<AnswerText, DataError> {
        match value {
            Value::Array(_) => self.as_messages(key, value).map(AnswerText::Messages),
            Value::Object(_) if messages::is_message(value) => self.as_messages(key, value).map(AnswerText::Messages),
            Value::String(text) => match self.written_messages(key, text)? {
                Some(turns) => Ok(AnswerText::Messages(turns)),
                None => Ok(AnswerText::Text(text.clone())),
            },
            other => Err(self.wrong(key, "text or messages", other)),
        }
    }

    /// Messages that a text holds, as JSON or as Python writes them: so tables come out of pandas.
    fn written_messages(&self, key: &str, text: &str) -> Result<Option<Vec<Message>>, DataError> {
        if !looks_like_messages(text) {
            return Ok(None);
        }
        let expected = "text or messages; this looks like messages but is neither JSON nor Python's way to write them";
        let value = nested_text(text).ok_or_else(|| self.wrong(key, expected, &Value::from(text)))?;
        self.as_messages(key, &value).map(Some)
    }

    /// A record of this row; the text fields that `used` does not name become tags. The row's `system`, `tools` and
    /// `chat_template_kwargs` go with a prompt of text or messages.
    ///
    /// # Errors
    /// When one of those is not what it should be.
    pub fn record(&self, prompt: PromptText, answers: Vec<AnswerText>, used: &[&str]) -> Result<Record, DataError> {
        let system = self.system(&prompt)?;
        let (tools, variables) = match prompt {
            PromptText::Ids(_) => (None, Map::new()),
            _ => (self.tools()?, self.variables()?),
        };
        let record = self.bare_record(prompt, answers, used)?;
        Ok(Record { system, tools, variables, ..record })
    }

    /// As [`Row::record`], for text that no system message and no tools can precede.
    ///
    /// # Errors
    /// None today.
    pub fn bare_record(
        &self,
        prompt: PromptText,
        answers: Vec<AnswerText>,
        used: &[&str],
    ) -> Result<Record, DataError> {
        let id = match self.fields.get("id") {
            Some(Value::String(id)) if !id.is_empty() => Some(id.clone()),
            Some(Value::Number(id)) => Some(id.to_string()),
            _ => None,
        };
        if id.is_some() {
            self.mark("id");
        }
        let id = id.unwrap_or_else(|| format!("{}:{}", self.file, self.line));
        let mut record = Record { id, prompt, answers, ..Record::default() };
        let used: Vec<&str> = used.iter().filter_map(|key| self.column(key)).collect();
        let read = self.read.borrow();
        let tag = |(key, value): (&String, &Value)| {
            let text = value.as_str().filter(|text| text.len() <= MAX_TAG_BYTES)?;
            let text_of_the_row = ["system", "system_prompt", "system_message", "tools", "chat_template_kwargs"];
            let taken = key == "id"
                || used.contains(&key.as_str())
                || (read.contains(key.as_str()) && (text_of_the_row.contains(&key.as_str()) || key == "input"));
            (!taken).then(|| (key.clone(), text.to_string()))
        };
        record.tags = self.fields.iter().filter_map(tag).collect::<BTreeMap<_, _>>();
        Ok(record)
    }

    /// The row's system message, if it has one that the prompt does not begin with already.
    fn system(&self, prompt: &PromptText) -> Result<Option<String>, DataError> {
        let nothing = self.column("system").is_none_or(|column| is_nothing(&self.fields[column]));
        if nothing || matches!(prompt, PromptText::Ids(_)) {
            return Ok(None);
        }
        let system = self.text("system")?;
        let PromptText::Messages(turns) = prompt else { return Ok(Some(system.to_string())) };
        match turns.iter().find(|turn| turn.role == "system") {
            None => Ok(Some(system.to_string())),
            Some(turn) if turn.text() == system => Ok(None),
            Some(_) => {
                let expected = "the system message that the prompt has already, or none";
                Err(self.wrong("system", expected, &Value::from(system)))
            }
        }
    }

    /// A list of tools, or a text that holds one: columns of a table cannot hold tools of different forms.
    fn tools(&self) -> Result<Option<Value>, DataError> {
        if self.fields.get("tools").is_none_or(is_nothing) {
            return Ok(None);
        }
        let tools = self.nested("tools")?;
        match tools.as_ref() {
            Value::Array(_) => Ok(Some(without_nulls(&tools))),
            other => Err(self.wrong("tools", "a list of tools, or a text that holds one", other)),
        }
    }

    fn variables(&self) -> Result<Map<String, Value>, DataError> {
        if self.fields.get("chat_template_kwargs").is_none_or(is_nothing) {
            return Ok(Map::new());
        }
        let variables = self.nested("chat_template_kwargs")?;
        match without_nulls(&variables) {
            Value::Object(variables) => Ok(variables),
            other => Err(self.wrong("chat_template_kwargs", "an object", &other)),
        }
    }

    /// As [`Row::record`], with the first answer preferred along the unnamed dimension.
    ///
    /// # Errors
    /// As [`Row::record`].
    pub fn chosen_first(
        &self,
        prompt: PromptText,
        chosen: AnswerText,
        rejected: AnswerText,
        used: &[&str],
    ) -> Result<Record, DataError> {
        let mut record = self.record(prompt, vec![chosen, rejected], used)?;
        record.labels.insert(self.dimension.to_string(), Preference::First);
        Ok(record)
    }
}

/// Whether a value says nothing: null, or an empty text, list or object.
pub(crate) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The list or object that a text holds, as JSON or as Python writes it.
pub(super) fn nested_text(text: &str) -> Option<Value> {
    let text = text.trim();
    if !text.starts_with(['[', '{']) {
        return None;
    }
    serde_json::from_str(text).ok().or_else(|| python::parse(text))
}

/// Whether a text is one or more messages written out: it begins with the key of a message.
fn looks_like_messages(text: &str) -> bool {
    let text = text.trim();
    let inside = text.strip_prefix('[').unwrap_or(text).trim_start().strip_prefix('{').map(str::trim_start);
    let Some(inside) = inside.filter(|_| text.ends_with(['}', ']'])) else { return false };
    let key = |name: &str| ['"', '\''].iter().any(|quote| inside.starts_with(&format!("{quote}{name}{quote}")));
    let both = |names: [&str; 2]| names.iter().any(|name| key(name)) && names.iter().all(|name| text.contains(name));
    both(["role", "content"]) || both(["from", "value"])
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

/// True or false, 1 or 0, also as text.
pub(super) fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(label) => Some(*label),
        Value::Number(number) if number.as_f64() == Some(1.0) => Some(true),
        Value::Number(number) if number.as_f64() == Some(0.0) => Some(false),
        Value::String(text) if ["true", "1"].contains(&text.trim().to_lowercase().as_str()) => Some(true),
        Value::String(text) if ["false", "0"].contains(&text.trim().to_lowercase().as_str()) => Some(false),
        _ => None,
    }
}
