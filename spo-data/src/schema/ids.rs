//! Rows that are already token ids.

use super::{Dimensions, Schema};
use crate::record::{AnswerText, PromptText};

pub(crate) const PAIR_IDS: Schema = Schema {
    name: "token-ids",
    summary: "a pair as token ids, taken as they are",
    keys: &["prompt_ids", "chosen_ids", "rejected_ids"],
    dimensions: Dimensions::Unnamed,
    recognise: |_| true,
    read: |row| {
        let prompt = PromptText::Ids(row.ids("prompt_ids")?);
        let chosen = AnswerText::Ids(row.ids("chosen_ids")?);
        let rejected = AnswerText::Ids(row.ids("rejected_ids")?);
        row.chosen_first(prompt, chosen, rejected, &[])
    },
    merge: false,
};

pub(crate) const COMPLETION_IDS: Schema = Schema {
    name: "completion-ids",
    summary: "a prompt with one completion as token ids",
    keys: &["prompt_ids", "completion_ids"],
    dimensions: Dimensions::None,
    recognise: |_| true,
    read: |row| {
        let prompt = PromptText::Ids(row.ids("prompt_ids")?);
        row.record(prompt, vec![AnswerText::Ids(row.ids("completion_ids")?)], &[])
    },
    merge: false,
};
