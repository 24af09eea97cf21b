//! What a policy gets right of each held-out prompt.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{PairScore, credit};

/// A policy on the held-out pairs that a prompt has along a dimension.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptTally {
    /// The policy.
    pub policy: String,
    /// The dimension.
    pub dimension: String,
    /// The prompt: a hash of its tokens, or of the row that it was made of. The same in every run with the same tokenizer
    /// and layout of text.
    pub prompt: String,
    /// Its pairs.
    pub pairs: usize,
    /// Pairs with a positive margin; one of 0 counts half.
    pub right: f64,
}

impl PromptTally {
    /// The tallies of a policy's pairs along a dimension, in the order of the prompts' hashes; a pair of no known prompt
    /// has none.
    #[must_use]
    pub fn all(policy: &str, dimension: &str, pairs: &[PairScore]) -> Vec<Self> {
        let mut found: BTreeMap<u64, (usize, f64)> = BTreeMap::new();
        for pair in pairs {
            let Some(prompt) = pair.prompt else { continue };
            let (count, right) = found.entry(prompt).or_default();
            *count += 1;
            *right += credit(pair.margin);
        }
        let tally = |(prompt, (pairs, right)): (u64, (usize, f64))| Self {
            policy: policy.to_owned(),
            dimension: dimension.to_owned(),
            prompt: format!("{prompt:016x}"),
            pairs,
            right,
        };
        found.into_iter().map(tally).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted_under_their_prompt() {
        let pair = |example, prompt, margin| PairScore { example, prompt, margin, ..PairScore::default() };
        let pairs = [pair(0, Some(2), 1.0), pair(1, Some(1), -1.0), pair(2, Some(2), 0.0), pair(3, None, 1.0)];
        let found = PromptTally::all("p", "d", &pairs);
        let told: Vec<(&str, usize, f64)> =
            found.iter().map(|tally| (tally.prompt.as_str(), tally.pairs, tally.right)).collect();
        assert_eq!(told, [("0000000000000001", 1, 0.0), ("0000000000000002", 2, 1.5)]);
    }
}
