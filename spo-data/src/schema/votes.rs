//! Votes of readers between two answers: SHP and LMSYS's arena.

use serde_json::Value;

use super::trl::split_turns;
use super::{Dimensions, Row, Schema};
use crate::record::{Message, Record};
use crate::{DataError, Preference};

pub(crate) const SHP: Schema = Schema {
    name: "shp",
    summary: "Stanford Human Preferences: labels is 1 where human_ref_A is preferred, else 0",
    keys: &["history", "human_ref_A", "human_ref_B", "labels"],
    dimensions: Dimensions::Unnamed,
    recognise: |_| true,
    read: |row| {
        let answers = vec![row.answer("human_ref_A")?, row.answer("human_ref_B")?];
        let record = row.record(row.prompt("history")?, answers, &["human_ref_A", "human_ref_B", "history"])?;
        let label = if row.truth("labels")? { Preference::First } else { Preference::Second };
        Ok(labelled(row, record, label))
    },
    merge: false,
};

pub(crate) const ARENA: Schema = Schema {
    name: "arena",
    summary: "LMSYS arena: two conversations and the winner (model_a, model_b, tie)",
    keys: &["conversation_a", "conversation_b", "winner"],
    dimensions: Dimensions::Unnamed,
    recognise: |_| true,
    read: |row| {
        let (first, second) = (row.messages("conversation_a")?, row.messages("conversation_b")?);
        let label = match row.text("winner")? {
            "model_a" => Preference::First,
            "model_b" => Preference::Second,
            tie if tie.starts_with("tie") || tie == "both_bad" => Preference::Tie,
            _ => return Err(row.wrong("winner", "model_a, model_b or tie", row.value("winner")?)),
        };
        let (prompt, first, second) = split_turns(first, second);
        let mut record = row.record(prompt, vec![first, second], &["winner"])?;
        record.tags.remove("winner");
        Ok(labelled(row, record, label))
    },
    merge: false,
};

pub(crate) const ARENA_PROMPTS: Schema = Schema {
    name: "arena-prompts",
    summary: "LMSYS arena with prompts: turns as lists, winner_model_a, winner_model_b and winner_tie",
    keys: &["prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"],
    dimensions: Dimensions::Unnamed,
    recognise: |_| true,
    read: |row| {
        let conversation = |key| -> Result<Vec<Message>, DataError> {
            let (asked, said) = (texts(row, "prompt")?, texts(row, key)?);
            if asked.len() != said.len() {
                return Err(row.wrong(key, "as many turns as the prompt has", row.value(key)?));
            }
            let turns = asked.iter().zip(&said);
            Ok(turns.flat_map(|(ask, say)| [Message::new("user", ask), Message::new("assistant", say)]).collect())
        };
        let (prompt, first, second) = split_turns(conversation("response_a")?, conversation("response_b")?);
        let votes = ["winner_model_a", "winner_model_b", "winner_tie"].map(|key| row.truth(key));
        let label = match votes {
            [Ok(true), Ok(false), Ok(false)] => Preference::First,
            [Ok(false), Ok(true), Ok(false)] => Preference::Second,
            [Ok(false), Ok(false), Ok(true)] => Preference::Tie,
            _ => return Err(row.wrong("winner_model_a", "one winner or a tie", row.value("winner_model_a")?)),
        };
        let used = ["prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"];
        let record = row.record(prompt, vec![first, second], &used)?;
        Ok(labelled(row, record, label))
    },
    merge: false,
};

/// The turns of one speaker: a list of texts, also written out as one text, or one text.
fn texts(row: &Row, key: &str) -> Result<Vec<String>, DataError> {
    let value = row.nested(key)?;
    let found = match value.as_ref() {
        Value::String(text) => Some(vec![text.clone()]),
        // A model that said nothing left null.
        Value::Array(turns) => turns
            .iter()
            .map(|turn| if turn.is_null() { Some(String::new()) } else { turn.as_str().map(Into::into) })
            .collect(),
        _ => None,
    };
    found.ok_or_else(|| row.wrong(key, "a list of texts", &value))
}

fn labelled(row: &Row, mut record: Record, label: Preference) -> Record {
    record.labels.insert(row.dimension.to_string(), label);
    record
}
