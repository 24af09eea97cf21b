//! TRL's preference layouts: explicit or implicit prompt, text or messages.

use super::messages::is_transcript;
use super::{Dimensions, Row, Schema};
use crate::DataError;
use crate::record::{AnswerText, Message, PromptText, Record};

pub(crate) const EXPLICIT: Schema = Schema {
    name: "trl",
    summary: "prompt, chosen and rejected as text or messages (also Orca's question, LLaMA-Factory's instruction)",
    keys: &["prompt", "chosen", "rejected"],
    dimensions: Dimensions::Unnamed,
    recognise: |_| true,
    read: |row| {
        let record = match (row.answer("chosen")?, row.answer("rejected")?) {
            // UltraFeedback binarized repeats the prompt in both conversations.
            (AnswerText::Messages(chosen), AnswerText::Messages(rejected))
                if starts_with_prompt(&chosen) && starts_with_prompt(&rejected) =>
            {
                let (prompt, chosen, rejected) = split_turns(chosen, rejected);
                let record = row.chosen_first(prompt, chosen, rejected, &["prompt"])?;
                row.mark_repeated("prompt", &record);
                record
            }
            (chosen, rejected) => {
                let used = ["prompt", "chosen", "rejected"];
                row.chosen_first(row.prompt("prompt")?, chosen, rejected, &used)?
            }
        };
        with_scores(row, record)
    },
    merge: false,
};

pub(crate) const IMPLICIT: Schema = Schema {
    name: "trl-implicit",
    summary: "chosen and rejected begin with the same prompt, as text or messages",
    keys: &["chosen", "rejected"],
    dimensions: Dimensions::Unnamed,
    recognise: |row| !row.has("prompt"),
    read: |row| {
        for key in ["chosen", "rejected"] {
            if row.text(key).is_ok_and(is_transcript) {
                return Err(row.wrong(key, "no transcript, as it stands among other texts", row.value(key)?));
            }
        }
        let (prompt, chosen, rejected) = match (row.answer("chosen")?, row.answer("rejected")?) {
            (AnswerText::Messages(chosen), AnswerText::Messages(rejected)) => split_turns(chosen, rejected),
            (AnswerText::Text(chosen), AnswerText::Text(rejected)) => {
                let at = text_boundary(&chosen, &rejected);
                let (prompt, first) = chosen.split_at(at);
                let second = &rejected[at..];
                (PromptText::Text(prompt.into()), AnswerText::Text(first.into()), AnswerText::Text(second.into()))
            }
            _ => {
                return Err(row.wrong("rejected", "text or messages as in chosen", row.value("rejected")?));
            }
        };
        with_scores(row, row.chosen_first(prompt, chosen, rejected, &["chosen", "rejected"])?)
    },
    merge: false,
};

fn starts_with_prompt(messages: &[Message]) -> bool {
    messages.first().is_some_and(|first| first.role == "user" || first.role == "system")
}

/// `score_chosen` and `score_rejected` become the strength of the pair.
fn with_scores(row: &Row, mut record: Record) -> Result<Record, DataError> {
    if row.has("score_chosen") && row.has("score_rejected") {
        let scores = vec![row.number("score_chosen")? as f32, row.number("score_rejected")? as f32];
        record.scores.insert(row.dimension.to_string(), scores);
    }
    for key in ["score_chosen", "score_rejected"] {
        record.tags.remove(key);
    }
    Ok(record)
}

/// The turns both conversations begin with are the prompt; each keeps at least its last turn.
pub(super) fn split_turns(
    mut chosen: Vec<Message>,
    mut rejected: Vec<Message>,
) -> (PromptText, AnswerText, AnswerText) {
    let most = chosen.len().min(rejected.len()).saturating_sub(1);
    let mut shared = chosen.iter().zip(&rejected).take(most).take_while(|(a, b)| a == b).count();
    // An assistant turn follows the prompt.
    while shared > 0 && chosen[shared - 1].role == "assistant" {
        shared -= 1;
    }
    let first = chosen.split_off(shared);
    let second = rejected.split_off(shared);
    (PromptText::Messages(chosen), AnswerText::Messages(first), AnswerText::Messages(second))
}

/// Where two texts part, one space earlier if a space comes before: as TRL's `extract_prompt`.
fn text_boundary(chosen: &str, rejected: &str) -> usize {
    let mut at = chosen.bytes().zip(rejected.bytes()).take_while(|(a, b)| a == b).count();
    while !chosen.is_char_boundary(at) || !rejected.is_char_boundary(at) {
        at -= 1;
    }
    at - usize::from(chosen[..at].ends_with(' '))
}
