//! What a scorer says of the answers that policies gave.

use serde::{Deserialize, Serialize};

use crate::EvalError;
use crate::bootstrap::Bootstrap;

/// A policy's answers in the eyes of a scorer, one number per prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AnswerScores {
    /// The policy.
    pub policy: String,
    /// What is scored: a dimension, or `score`.
    pub dimension: String,
    /// Answers with a score.
    pub answers: usize,
    /// Mean score.
    pub mean: f64,
    /// Its 95 % interval over prompts.
    pub interval: (f64, f64),
    /// Mean tokens of these answers.
    pub mean_tokens: f64,
}

impl AnswerScores {
    /// The mean of the scores with its interval; `tokens` are those of the answers.
    ///
    /// # Errors
    /// No scores, or too few resamples.
    pub fn of(
        policy: &str,
        dimension: &str,
        scores: &[f64],
        tokens: &[usize],
        bootstrap: &Bootstrap,
    ) -> Result<Self, EvalError> {
        let interval = bootstrap.mean(scores)?;
        let count = scores.len() as f64;
        Ok(Self {
            policy: policy.to_owned(),
            dimension: dimension.to_owned(),
            answers: scores.len(),
            mean: scores.iter().sum::<f64>() / count,
            interval,
            mean_tokens: tokens.iter().sum::<usize>() as f64 / count,
        })
    }
}

/// The pairs that an online round made of its policy's own answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OnlinePairs {
    /// The round that trains on them.
    pub round: String,
    /// The policy that answered.
    pub policy: String,
    /// What is trained.
    pub dimension: String,
    /// Prompts that were answered.
    pub prompts: usize,
    /// Answers, those of the data not counted.
    pub answers: usize,
    /// Mean score of the policy's answers.
    pub mean_score: f64,
    /// Answers that have no score.
    pub silent: usize,
    /// Pairs that differ enough.
    pub pairs: usize,
    /// Mean difference of their scores.
    pub mean_gap: f64,
    /// Mean tokens of the chosen answers.
    pub chosen_tokens: f64,
    /// Mean tokens of the rejected answers.
    pub rejected_tokens: f64,
    /// Of the pairs of a policy's and a data set's answer, the fraction that the data's answer wins; absent where no pair is
    /// of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_wins: Option<f64>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_mean_with_its_interval() {
        let found = AnswerScores::of("a", "style", &[1.0, 2.0, 3.0], &[4, 4, 7], &Bootstrap::default()).unwrap();
        assert_eq!((found.mean, found.mean_tokens, found.answers), (2.0, 5.0, 3));
        assert!(found.interval.0 < 2.0 && found.interval.1 > 2.0);
        assert!(AnswerScores::of("a", "style", &[], &[], &Bootstrap::default()).is_err());
    }
}
