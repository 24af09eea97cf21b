//! Scores by rules that need no model.

use std::collections::BTreeSet;

use schemars::{JsonSchema, schema_for};
use serde::Deserialize;

use crate::entry::{Entry, OpenError, decoded};
use crate::{Item, ScoreError, Scorer, Scores, Watch};

pub(crate) const ENTRY: Entry = Entry {
    name: "rules",
    summary: "length, refusal, keywords, repetition, proper end: a sum of rules that need no model",
    example: "rules:length=60,repetition=1",
    options: || schema_for!(Rules),
    argument: None,
    check: |options| {
        let rules: Rules = decoded(options)?;
        if rules == Rules::default() {
            return Err(OpenError::Options("no rule is on".into()));
        }
        if let Some(wrong) = [rules.length, rules.repetition, rules.ends, rules.refusal, rules.coverage]
            .into_iter()
            .flatten()
            .find(|number| !number.is_finite())
        {
            return Err(OpenError::Options(format!("{wrong} is not a finite number")));
        }
        if rules.length.is_some_and(|words| words <= 0.0) {
            return Err(OpenError::Options("length must be above 0 words".into()));
        }
        if rules.coverage.is_some() && rules.keywords.is_empty() {
            return Err(OpenError::Options("coverage needs keywords".into()));
        }
        Ok(())
    },
    open: |options, _, _| Ok(Box::new(decoded::<Rules>(options)?)),
};

/// Beginnings and phrases of answers that decline, in lower case.
const REFUSALS: &[&str] = &[
    "i can't",
    "i cannot",
    "i can not",
    "i won't",
    "i will not",
    "i'm sorry",
    "i am sorry",
    "i'm unable",
    "i am unable",
    "i'm not able",
    "i am not able",
    "i have no comment",
    "as an ai",
    "i must decline",
    "i don't know",
];
/// Tokens of a sequence whose repetition counts.
const NGRAM: usize = 3;

/// Options of `rules`. A rule that has no value is off; the score is the sum of those that are on.
#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Rules {
    /// Wanted number of words n: adds −|words − n| / n.
    length: Option<f64>,
    /// Weight w: adds −w where the answer declines (“I cannot …”, “I have no comment.”); a negative weight rewards it.
    refusal: Option<f64>,
    /// Words or phrases that the answer should have.
    keywords: Vec<String>,
    /// Weight w of the keywords, 1 where they are given alone: adds w times the fraction of them that occur.
    coverage: Option<f64>,
    /// Weight w: adds −w (1 − unique / all) over the sequences of three tokens (of words where there is only text).
    repetition: Option<f64>,
    /// Weight w: adds w where the answer ends with a sentence's punctuation, −w where it breaks off.
    ends: Option<f64>,
}

impl Rules {
    fn of(&self, item: &Item) -> f64 {
        let text = item.response.trim();
        let lower = text.to_lowercase().replace('’', "'");
        let words = text.split_whitespace().count() as f64;
        let truth = |truth: bool| f64::from(u8::from(truth));
        let mut sum = 0.0;
        sum -= self.length.map_or(0.0, |wanted| (words - wanted).abs() / wanted);
        sum -=
            self.refusal.map_or(0.0, |weight| weight * truth(REFUSALS.iter().any(|refusal| lower.contains(refusal))));
        if !self.keywords.is_empty() {
            let found = self.keywords.iter().filter(|keyword| lower.contains(&keyword.to_lowercase())).count();
            sum += self.coverage.unwrap_or(1.0) * found as f64 / self.keywords.len() as f64;
        }
        sum -= self.repetition.map_or(0.0, |weight| weight * repetition(item));
        sum += self.ends.map_or(0.0, |weight| if ends_properly(text) { weight } else { -weight });
        sum
    }
}

/// `1 − unique / all` over n-grams; 0 of an answer shorter than one.
fn repetition(item: &Item) -> f64 {
    fn of<T: Ord>(tokens: &[T]) -> f64 {
        let all = tokens.windows(NGRAM).count();
        let unique: BTreeSet<&[T]> = tokens.windows(NGRAM).collect();
        if all == 0 { 0.0 } else { 1.0 - unique.len() as f64 / all as f64 }
    }
    match item.response_ids.is_empty() {
        false => of(&item.response_ids),
        true => of(&item.response.split_whitespace().collect::<Vec<_>>()),
    }
}

/// Whether the last letter ends a sentence, whatever quotes and brackets close behind it.
fn ends_properly(text: &str) -> bool {
    text.trim_end_matches(['"', '\'', '”', '’', ')', ']', '*', '`']).ends_with(['.', '!', '?', '…', '。', '！', '？'])
}

impl Scorer for Rules {
    fn score(&mut self, items: &[Item], watch: Watch) -> Result<Vec<Option<Scores>>, ScoreError> {
        items.iter().try_for_each(|item| item.require_text("rules"))?;
        let scores = items.iter().map(|item| Some(Scores::one(self.of(item)))).collect();
        if watch(items.len()) { Ok(scores) } else { Err(ScoreError::Interrupted) }
    }
}
