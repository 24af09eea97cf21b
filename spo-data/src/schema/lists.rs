//! Lists of answers to one prompt, each with a score or a rank.

use serde_json::Value;

use super::messages::{is_transcript, transcript};
use super::row::number;
use super::{Dimensions, Row, Schema};
use crate::DataError;
use crate::record::{AnswerText, PromptText, Record};

pub(crate) const SCORED_LIST: Schema = Schema {
    name: "scored-list",
    summary: "responses with scores: a list of numbers, or one list per dimension",
    keys: &["prompt", "responses", "scores"],
    dimensions: Dimensions::Unnamed,
    recognise: |_| true,
    read: |row| {
        let mut record = responses(row)?;
        let scores = row.nested("scores")?;
        match scores.as_ref() {
            Value::Object(dimensions) => {
                for (dimension, list) in dimensions {
                    insert_scores(row, &mut record, dimension, list)?;
                }
            }
            list => insert_scores(row, &mut record, row.dimension, list)?,
        }
        Ok(record)
    },
    merge: false,
};

pub(crate) const RANKED_LIST: Schema = Schema {
    name: "ranked-list",
    summary: "responses with ranks: a list of numbers, 1 is the best",
    keys: &["prompt", "responses", "ranks"],
    dimensions: Dimensions::Unnamed,
    recognise: |_| true,
    read: |row| {
        let mut record = responses(row)?;
        let ranks = row.nested("ranks")?;
        insert_scores(row, &mut record, row.dimension, &ranks)?;
        negate(&mut record, row.dimension);
        Ok(record)
    },
    merge: false,
};

/// Keys of an answer in a list of objects.
const ANSWER: [&str; 6] = ["answer", "response", "completion", "text", "content", "value"];
/// Keys of its score, higher is better.
const SCORE: [&str; 3] = ["score", "rating", "reward"];

pub(crate) const ANSWERS: Schema = Schema {
    name: "answers",
    summary: "answers as objects with rank (1 is the best; Nectar) or score",
    keys: &["prompt", "answers"],
    dimensions: Dimensions::Unnamed,
    recognise: |row| {
        let judged = |item: &Value| judgement(item).is_some();
        row.list("answers").is_ok_and(|list| list.first().is_some_and(judged))
    },
    read: |row| {
        let items = row.list("answers")?;
        let expected = "a list of objects with an answer and its rank or score";
        let wrong = || row.wrong("answers", expected, &Value::Array(items.clone()));
        let (mut answers, mut scores) = (Vec::new(), Vec::new());
        let ranked = items.iter().all(|item| item.get("rank").is_some());
        for item in &items {
            let text = ANSWER.iter().find_map(|key| item.get(*key)).ok_or_else(wrong)?;
            answers.push(row.as_answer("answers", text)?);
            let found = if ranked { item.get("rank").and_then(number) } else { score(item) };
            let found = found.ok_or_else(wrong)? as f32;
            scores.push(if ranked { -found } else { found });
        }
        let prompt = match row.prompt("prompt")? {
            // Nectar's prompts are transcripts that end with the assistant's name.
            PromptText::Text(text) if is_transcript(&text) && text.trim_end().ends_with("Assistant:") => {
                let mut turns = transcript(&text).ok_or_else(|| row.wrong("prompt", "a transcript", &text.into()))?;
                turns.pop();
                PromptText::Messages(turns)
            }
            prompt => prompt,
        };
        let mut record = row.record(prompt, answers, &["prompt"])?;
        record.scores.insert(row.dimension.to_string(), scores);
        Ok(record)
    },
    merge: false,
};

pub(crate) const RESPONSES: Schema = Schema {
    name: "responses",
    summary: "responses without a judgement, for a scorer to label",
    keys: &["prompt", "responses"],
    dimensions: Dimensions::None,
    recognise: |row| row.list("responses").is_ok_and(|list| list.first().is_some_and(|item| judgement(item).is_none())),
    read: responses,
    merge: false,
};

fn score(item: &Value) -> Option<f64> {
    SCORE.iter().find_map(|key| number(item.get(*key)?))
}

fn judgement(item: &Value) -> Option<f64> {
    item.get("rank").and_then(number).or_else(|| score(item))
}

fn responses(row: &Row) -> Result<Record, DataError> {
    let responses = row.list("responses")?;
    let answers: Vec<AnswerText> =
        responses.iter().map(|answer| row.as_answer("responses", answer)).collect::<Result<_, _>>()?;
    row.record(row.prompt("prompt")?, answers, &["prompt"])
}

/// Ranks become scores: the lowest rank is the best.
fn negate(record: &mut Record, dimension: &str) {
    record.scores.get_mut(dimension).into_iter().flatten().for_each(|score| *score = -*score);
}

/// One score per answer along a dimension.
pub(super) fn insert_scores(row: &Row, record: &mut Record, dimension: &str, list: &Value) -> Result<(), DataError> {
    let scores: Option<Vec<f32>> =
        list.as_array().and_then(|list| list.iter().map(|score| number(score).map(|s| s as f32)).collect());
    let scores = scores
        .filter(|scores| scores.len() == record.answers.len())
        .ok_or_else(|| row.wrong("scores", "one number per response", list))?;
    record.scores.insert(dimension.to_string(), scores);
    Ok(())
}
