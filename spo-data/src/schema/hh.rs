//! Anthropic HH: two whole transcripts that share their beginning.

use serde_json::Value;

use super::trl::split_turns;
use super::{Dimensions, Schema};
use crate::record::Message;

const SPEAKERS: [(&str, &str); 2] = [("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];

pub(super) const HH: Schema = Schema {
    name: "hh",
    summary: "chosen and rejected are transcripts \"\\n\\nHuman: …\\n\\nAssistant: …\"",
    keys: &["chosen", "rejected"],
    dimensions: Dimensions::Unnamed,
    recognise: |row| {
        ["chosen", "rejected"].iter().all(|key| {
            let text = row.fields.get(*key).and_then(Value::as_str);
            text.is_some_and(|text| text.starts_with(SPEAKERS[0].0))
        }) && !row.has("prompt")
    },
    read: |row| {
        let turns = |key| {
            let turns = parse(row.text(key)?);
            let ends = turns.as_ref().is_some_and(|turns| turns.last().is_some_and(|t| t.role == "assistant"));
            turns.filter(|_| ends).ok_or_else(|| {
                let expected = "a transcript \"\\n\\nHuman: …\" that ends with an Assistant turn";
                row.wrong(key, expected, &row.fields[key])
            })
        };
        let (prompt, chosen, rejected) = split_turns(turns("chosen")?, turns("rejected")?);
        Ok(row.chosen_first(prompt, chosen, rejected, &["chosen", "rejected"]))
    },
    merge: false,
};

/// Turns of a transcript, without the one space after a speaker's name.
fn parse(transcript: &str) -> Option<Vec<Message>> {
    let mut rest = transcript;
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
