//! Anthropic HH: two whole transcripts that share their beginning.

use super::messages::{is_transcript, transcript};
use super::trl::split_turns;
use super::{Dimensions, Schema};

pub(crate) const HH: Schema = Schema {
    name: "hh",
    summary: "chosen and rejected are transcripts \"\\n\\nHuman: …\\n\\nAssistant: …\"",
    keys: &["chosen", "rejected"],
    dimensions: Dimensions::Unnamed,
    recognise: |row| {
        ["chosen", "rejected"].iter().all(|key| row.text(key).is_ok_and(is_transcript)) && !row.has("prompt")
    },
    read: |row| {
        let turns = |key| {
            let expected = "a transcript \"\\n\\nHuman: …\\n\\nAssistant: …\"";
            let value = row.value(key)?;
            transcript(row.text(key)?).ok_or_else(|| row.wrong(key, expected, value))
        };
        let (prompt, chosen, rejected) = split_turns(turns("chosen")?, turns("rejected")?);
        row.chosen_first(prompt, chosen, rejected, &["chosen", "rejected"])
    },
    merge: false,
};
