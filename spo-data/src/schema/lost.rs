//! What a layout would leave out of a row.

use serde_json::Value;

use super::Row;
use super::names::{Likeness, likeness};
use crate::DataError;
use crate::record::{AnswerText, Message, PromptText, Record};

/// Refuses a row with a column that looks like text or a judgement which the layout does not read. Text that the record
/// has anyway is not lost, and rows of token ids say everything.
pub(crate) fn check(row: &Row, record: &Record) -> Result<(), DataError> {
    if matches!(record.prompt, PromptText::Ids(_)) {
        return Ok(());
    }
    let lost = |(name, value): &(&String, &Value)| match likeness(name) {
        Some(Likeness::Text(_)) => {
            (value.is_string() || value.is_array() || value.is_object()) && !repeats(value, record)
        }
        Some(Likeness::Label) => true,
        None => false,
    };
    let Some((column, _)) = row.unread().find(lost) else { return Ok(()) };
    let key = match likeness(column) {
        Some(Likeness::Text(key)) if !row.has(key) && key != "chosen" && key != "rejected" => Some(key),
        _ => None,
    };
    let (file, column) = (row.file.to_string(), column.clone());
    Err(DataError::LeftOut { file, line: row.line, schema: row.schema, column, key })
}

/// Whether all text of a value is text of the record.
pub(super) fn repeats(value: &Value, record: &Record) -> bool {
    let mut texts = prompt_texts(&record.prompt);
    texts.extend(record.system.clone());
    texts.extend(record.answers.iter().flat_map(answer_texts));
    let mut whole = true;
    leaves(value, &mut |leaf| whole &= texts.iter().any(|text| text.contains(leaf.trim())));
    whole
}

/// Calls with every text of a value that is no name of a role.
fn leaves(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, visit)),
        Value::Object(fields) => {
            fields.iter().filter(|(key, _)| *key != "role" && *key != "from").for_each(|(_, item)| leaves(item, visit));
        }
        _ => {}
    }
}

fn prompt_texts(prompt: &PromptText) -> Vec<String> {
    match prompt {
        PromptText::Text(text) => vec![text.clone()],
        PromptText::Messages(turns) => turns.iter().map(Message::text).collect(),
        PromptText::Ids(_) => vec![],
    }
}

fn answer_texts(answer: &AnswerText) -> Vec<String> {
    match answer {
        AnswerText::Text(text) => vec![text.clone()],
        AnswerText::Messages(turns) => turns.iter().map(Message::text).collect(),
        AnswerText::Ids(_) => vec![],
    }
}
