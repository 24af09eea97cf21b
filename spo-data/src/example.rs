//! The tokenised unit of preference data.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Tokens;

/// First 16 bytes of the blake3 hash of one prompt with one answer; keys caches of frozen log-probs.
pub type RowHash = [u8; 16];

/// Which of two answers a label prefers.
///
/// In an example with a single answer (KTO) `First` means desirable and `Second` undesirable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preference {
    /// `answers[0]` is preferred.
    First,
    /// `answers[1]` is preferred.
    Second,
    /// Neither is preferred.
    Tie,
}

impl Preference {
    /// Reads a sign: positive is the first answer, negative the second, zero a tie.
    pub fn from_sign(sign: f64) -> Self {
        if sign > 0.0 {
            Self::First
        } else if sign < 0.0 {
            Self::Second
        } else {
            Self::Tie
        }
    }

    /// `1` for the first answer, `-1` for the second, `0` for a tie.
    pub fn sign(self) -> i8 {
        match self {
            Self::First => 1,
            Self::Second => -1,
            Self::Tie => 0,
        }
    }
}

/// One prompt with its candidate answers, tokenised; labels say per dimension which answer is preferred.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Example {
    /// The row's own `id`, or `file.jsonl:12` (line counted from 1).
    pub id: String,
    /// Prompt token ids, special tokens included.
    pub prompt: Tokens,
    /// Token ids of each answer, terminator included unless it was cut.
    pub answers: Vec<Tokens>,
    /// Preference between `answers[0]` and `answers[1]` per dimension; an absent dimension is unlabelled.
    /// Shared among the examples of a file that are labelled alike.
    pub labels: Arc<BTreeMap<String, Preference>>,
    /// Score of every answer per dimension, higher is better (scored lists, strengths); often empty.
    pub scores: BTreeMap<String, Vec<f32>>,
    /// Whether each answer is safe, whatever the dimension; empty where the row does not say.
    pub safe: Vec<bool>,
    /// The row's other string fields, such as `kind`; shared like the labels.
    pub tags: Arc<BTreeMap<String, String>>,
    /// The row that it was made of, where rows are made of rows; `None`: it is one of the data.
    pub source: Option<SourceRow>,
}

/// What rows that were made of the same row have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRow {
    /// Number of the prompt as it stands in the data.
    pub prompt: u64,
    /// Number of the row.
    pub row: u64,
}

impl Example {
    /// Hash of the prompt with one answer, over token ids only: equal text under another tokenizer differs.
    ///
    /// An answer index out of range hashes like an empty answer.
    pub fn answer_hash(&self, answer: usize) -> RowHash {
        row_hash(&self.prompt, self.answers.get(answer).map_or(&[], Tokens::as_slice))
    }

    /// The answer indexes `(chosen, rejected)` along a dimension; `None` when unlabelled, tied or single.
    ///
    /// A label decides between the first two answers; without one, the best and the worst score do.
    pub fn pair(&self, dimension: &str) -> Option<(usize, usize)> {
        pair_of(self.answers.len(), self.labels.get(dimension), self.scores.get(dimension))
    }

    /// Number of the prompt as it stands in the data: rows with the same one depend on each other. The same on every machine
    /// and with every compiler.
    pub fn prompt_key(&self) -> u64 {
        let of_tokens =
            || u64::from_le_bytes(row_hash(&self.prompt, &[])[..8].try_into().expect("a hash has 16 bytes"));
        self.source.map_or_else(of_tokens, |source| source.prompt)
    }

    /// Dimensions that have a label or scores, in order.
    pub fn dimensions(&self) -> impl Iterator<Item = &str> {
        let scored = self.scores.keys().filter(|name| !self.labels.contains_key(*name));
        self.labels.keys().chain(scored).map(String::as_str)
    }

    /// Tokens of the prompt and all answers: the length of this example in a packed batch.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.answers.iter().map(|answer| answer.len()).sum::<usize>()
    }
}

/// The pair of a row with so many answers, by its label or else its scores.
pub(crate) fn pair_of(answers: usize, label: Option<&Preference>, scores: Option<&Vec<f32>>) -> Option<(usize, usize)> {
    if answers < 2 {
        return None;
    }
    match label {
        Some(Preference::First) => return Some((0, 1)),
        Some(Preference::Second) => return Some((1, 0)),
        Some(Preference::Tie) => return None,
        None => {}
    }
    let scores = scores?.get(..answers)?;
    let mut best = 0;
    let mut worst = 0;
    for (index, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = index;
        }
        if *score < scores[worst] {
            worst = index;
        }
    }
    (best != worst).then_some((best, worst))
}

/// [`Example::answer_hash`] of any prompt and answer.
pub fn row_hash(prompt: &[u32], answer: &[u32]) -> RowHash {
    let mut hasher = blake3::Hasher::new();
    hash_ids(&mut hasher, prompt);
    hash_ids(&mut hasher, answer);
    let mut hash = RowHash::default();
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    hash
}

/// Feeds a length-prefixed id list to a hasher, so that no two lists run together.
pub(crate) fn hash_ids(hasher: &mut blake3::Hasher, ids: &[u32]) {
    hasher.update(&(ids.len() as u64).to_le_bytes());
    for id in ids {
        hasher.update(&id.to_le_bytes());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn example() -> Example {
        Example {
            prompt: [1, 2].into(),
            answers: vec![[3].into(), [4, 5].into()],
            labels: Arc::new([("honesty".into(), Preference::Second), ("tone".into(), Preference::Tie)].into()),
            ..Example::default()
        }
    }

    #[test]
    fn labels_decide_the_pair() {
        let example = example();
        assert_eq!(example.pair("honesty"), Some((1, 0)));
        assert_eq!(example.pair("tone"), None);
        assert_eq!(example.pair("absent"), None);
    }

    #[test]
    fn scores_give_best_against_worst() {
        let mut example = example();
        example.answers.push([6].into());
        example.scores.insert("help".into(), vec![2.0, 1.0, 3.0]);
        example.scores.insert("flat".into(), vec![2.0, 2.0, 2.0]);
        example.scores.insert("short".into(), vec![2.0]);
        assert_eq!(example.pair("help"), Some((2, 1)));
        assert_eq!(example.pair("flat"), None);
        assert_eq!(example.pair("short"), None);
        let names: Vec<_> = example.dimensions().collect();
        assert_eq!(names, ["honesty", "tone", "flat", "help", "short"]);
    }

    #[test]
    fn a_hash_tells_prompt_from_answer() {
        let first = example();
        let mut moved = example();
        moved.prompt = [1].into();
        moved.answers[0] = [2, 3].into();
        assert_ne!(first.answer_hash(0), moved.answer_hash(0));
        assert_ne!(first.answer_hash(0), first.answer_hash(1));
        assert_eq!(first.answer_hash(1), example().answer_hash(1));
    }
}
