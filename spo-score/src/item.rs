//! What is scored, what comes back, and the trait between them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use spo_data::{AnswerText, Message, PromptText, Record, TextSpec, Tokenizer, encode_record};

use crate::ScoreError;

/// One answer to one prompt.
#[derive(Debug, Clone, Default)]
pub struct Item {
    /// Where it comes from, for messages.
    pub id: String,
    /// The prompt as its author wrote it: text or messages.
    pub prompt: PromptText,
    /// The answer as text.
    pub response: String,
    /// The prompt as tokens of the policy that answered; empty where there is only text.
    pub prompt_ids: Vec<u32>,
    /// The answer as tokens, with the one that ends it; empty where there is only text.
    pub response_ids: Vec<u32>,
    /// The dimension that is asked for, where it is one.
    pub dimension: Option<String>,
}

impl Item {
    /// The prompt as one text: of a conversation its last turn.
    pub fn prompt_text(&self) -> String {
        match &self.prompt {
            PromptText::Text(text) => text.clone(),
            PromptText::Messages(turns) => turns.last().map(Message::text).unwrap_or_default(),
            PromptText::Ids(_) => String::new(),
        }
    }

    /// The conversation with the answer as its last turn.
    pub fn messages(&self) -> Vec<Message> {
        let mut turns = match &self.prompt {
            PromptText::Messages(turns) => turns.clone(),
            _ => vec![Message::new("user", &self.prompt_text())],
        };
        turns.push(Message::new("assistant", &self.response));
        turns
    }

    /// Refuses an answer that is there as tokens only.
    pub(crate) fn require_text(&self, scorer: &str) -> Result<(), ScoreError> {
        // An answer may well be empty, a prompt hardly.
        let text = !matches!(self.prompt, PromptText::Ids(_)) && self.prompt != PromptText::default();
        match text || self.prompt_ids.is_empty() {
            true => Ok(()),
            false => Err(ScoreError::NoText { scorer: scorer.into(), id: self.id.clone() }),
        }
    }

    /// The fields that programs and servers are given.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let fields = json!({
            "prompt": self.prompt_text(),
            "response": self.response,
            "messages": self.messages(),
            "dimension": self.dimension,
        });
        let Value::Object(fields) = fields else { unreachable!("braces make an object") };
        fields.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }
}

/// Prompt and answer as the tokens of a model.
pub(crate) struct Ids {
    pub prompt: Vec<u32>,
    pub answer: Vec<u32>,
}

impl Ids {
    /// An item's text as a model's layout has it; `None` where there is no answer to score.
    pub fn of_text(item: &Item, tokenizer: &Tokenizer, text: &TextSpec) -> Result<Option<Self>, ScoreError> {
        if item.response.trim().is_empty() {
            return Ok(None);
        }
        let (prompt, answers) = (item.prompt.clone(), vec![AnswerText::Text(item.response.clone())]);
        let record = Record { id: item.id.clone(), prompt, answers, ..Record::default() };
        let (example, _) = encode_record(tokenizer, text, record)?;
        Ok(example.map(|example| Self { prompt: example.prompt.to_vec(), answer: example.answers[0].to_vec() }))
    }
}

/// What a scorer says of one answer: one number, a number per dimension, or both.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Scores {
    /// The one number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Numbers by dimension.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub by_dimension: BTreeMap<String, f64>,
}

impl Scores {
    /// One number for all.
    pub fn one(score: f64) -> Self {
        Self { score: Some(score), ..Self::default() }
    }

    /// The number for a dimension; the one number where there is none of that name.
    pub fn of(&self, dimension: Option<&str>) -> Option<f64> {
        dimension.and_then(|name| self.by_dimension.get(name).copied()).or(self.score)
    }
}

/// One number for each item, some items at a time.
pub(crate) fn in_chunks(
    scorer: &str,
    items: &[Item],
    watch: Watch,
    mut score: impl FnMut(&[Item]) -> Result<Vec<Option<f64>>, ScoreError>,
) -> Result<Vec<Option<Scores>>, ScoreError> {
    /// Items that are scored together.
    const CHUNK: usize = 64;
    let mut scores = vec![];
    for items in items.chunks(CHUNK) {
        for (item, found) in items.iter().zip(score(items)?) {
            if let Some(found) = found.filter(|found| !found.is_finite()) {
                return Err(ScoreError::NotFinite { scorer: scorer.into(), id: item.id.clone(), found });
            }
            scores.push(found.map(Scores::one));
        }
        if !watch(scores.len()) {
            return Err(ScoreError::Interrupted);
        }
    }
    Ok(scores)
}

/// Told how many items are scored so far; `false` ends the work with [`ScoreError::Interrupted`].
pub type Watch<'a> = &'a mut dyn FnMut(usize) -> bool;

/// Somebody who scores answers.
pub trait Scorer: Send {
    /// One entry per item in the items' order; `None` where the scorer declines to judge.
    ///
    /// # Errors
    /// What the kind's page says; never a number that is not finite.
    fn score(&mut self, items: &[Item], watch: Watch) -> Result<Vec<Option<Scores>>, ScoreError>;
}
