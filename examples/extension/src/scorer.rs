//! A kind of scorer: the fraction of an answer's letters that are digits.

use spo_score::{Entry, Item, ScoreError, Scorer, Scores, Watch, decoded};

/// `scorer = "digits"`, or `{ kind = "digits", weight = 2 }`.
pub const DIGITS: Entry = Entry {
    name: "digits",
    summary: "the fraction of digits",
    example: "digits",
    options: || schemars::schema_for!(Digits),
    argument: None,
    check: |options| decoded::<Digits>(options).map(drop),
    open: |options, _, _| Ok(Box::new(decoded::<Digits>(options)?)),
};

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Digits {
    /// What the fraction is multiplied with.
    #[serde(default = "one")]
    weight: f64,
}

fn one() -> f64 {
    1.0
}

impl Scorer for Digits {
    fn score(&mut self, items: &[Item], watch: Watch) -> Result<Vec<Option<Scores>>, ScoreError> {
        let score = |item: &Item| {
            let letters = item.response.chars().count();
            let digits = item.response.chars().filter(char::is_ascii_digit).count();
            // An empty answer has no score.
            (letters > 0).then(|| Scores::one(self.weight * digits as f64 / letters as f64))
        };
        let scores = items.iter().map(score).collect();
        if watch(items.len()) { Ok(scores) } else { Err(ScoreError::Interrupted) }
    }
}
