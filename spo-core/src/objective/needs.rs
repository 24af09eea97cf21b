//! What an objective looks at besides the policy's sequence log-probabilities.

use crate::{CoreError, PairNumbers};

/// Inputs that an objective needs; asking for what the data lack is an error before training.
///
/// More inputs will come: end an expression with `..Needs::POLICY` or `..Needs::REFERENCE`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Needs {
    /// Sequence log-probabilities of the reference.
    pub reference: bool,
    /// The earlier policies `π_0 … π_{n−1}`, however many there are.
    pub history: bool,
    /// Exactly this many earlier policies (0: no certain number).
    pub earlier: usize,
    /// Answer lengths in tokens.
    pub lengths: bool,
    /// A strength per pair.
    pub strengths: bool,
    /// Further references to mix.
    pub mixture: bool,
    /// Sequence KL between reference and policy.
    pub sequence_kl: bool,
    /// An answer per pair that the reference wrote.
    pub sampled: bool,
    /// A safety label per answer.
    pub safety: bool,
    /// The on-policy weight of each answer.
    pub on_policy: bool,
    /// Answers of other rows to estimate the KL on (unpaired losses).
    pub mismatched: bool,
    /// A score of each answer (list-wise losses).
    pub scores: bool,
    /// The loss of a pair depends on the others: all pairs of a batch must come at once.
    pub whole_batch: bool,
    /// Share of an answer's tokens beyond the shorter answer's length (LD-DPO); `None` sums all tokens in full.
    pub length_desensitising: Option<f64>,
}

impl Needs {
    /// Needs nothing but the policy.
    pub const POLICY: Self = Self {
        reference: false,
        history: false,
        earlier: 0,
        lengths: false,
        strengths: false,
        mixture: false,
        sequence_kl: false,
        sampled: false,
        safety: false,
        on_policy: false,
        mismatched: false,
        scores: false,
        whole_batch: false,
        length_desensitising: None,
    };

    /// Needs the reference as well.
    pub const REFERENCE: Self = Self { reference: true, ..Self::POLICY };

    /// Everything that either needs.
    pub fn and(self, other: Self) -> Self {
        Self {
            reference: self.reference || other.reference,
            history: self.history || other.history,
            earlier: self.earlier.max(other.earlier),
            lengths: self.lengths || other.lengths,
            strengths: self.strengths || other.strengths,
            mixture: self.mixture || other.mixture,
            sequence_kl: self.sequence_kl || other.sequence_kl,
            sampled: self.sampled || other.sampled,
            safety: self.safety || other.safety,
            on_policy: self.on_policy || other.on_policy,
            mismatched: self.mismatched || other.mismatched,
            scores: self.scores || other.scores,
            whole_batch: self.whole_batch || other.whole_batch,
            length_desensitising: self.length_desensitising.or(other.length_desensitising),
        }
    }

    /// The inputs in words, in a fixed order.
    pub fn words(&self) -> Vec<&'static str> {
        [
            (self.reference, "reference log-probabilities"),
            (self.history || self.earlier > 0, "log-probabilities of all earlier policies"),
            (self.lengths, "answer lengths"),
            (self.strengths, "strengths"),
            (self.mixture, "log-probabilities of further references"),
            (self.sequence_kl, "sequence KL to the reference"),
            (self.sampled, "an answer sampled from the reference"),
            (self.safety, "safety labels"),
            (self.on_policy, "on-policy weights"),
            (self.mismatched, "mismatched prompts and answers"),
            (self.scores, "scores of all answers"),
            (self.whole_batch, "all pairs of a batch at once"),
            (self.length_desensitising.is_some(), "token log-probabilities"),
        ]
        .into_iter()
        .filter_map(|(needed, words)| needed.then_some(words))
        .collect()
    }

    /// Checks that `pairs` have everything.
    ///
    /// # Errors
    /// [`CoreError::MissingInput`] with the first input that is absent, [`CoreError::Length`] for too few or too many
    /// earlier policies.
    pub fn check(&self, objective: &str, pairs: &PairNumbers) -> Result<(), CoreError> {
        for (needed, there, input) in [
            (self.reference, pairs.reference.is_some(), "reference log-probabilities"),
            (self.history || self.earlier > 0, !pairs.earlier.is_empty(), "log-probabilities of all earlier policies"),
            (self.lengths, pairs.lengths.is_some(), "answer lengths"),
            (self.strengths, pairs.strengths.is_some(), "strengths"),
            (self.mixture, !pairs.mixture.is_empty(), "log-probabilities of further references"),
            (self.sequence_kl, pairs.sequence_kl.is_some(), "sequence KL to the reference"),
            (self.sampled, pairs.sampled.is_some(), "an answer sampled from the reference"),
            (self.safety, pairs.safety.is_some(), "safety labels"),
            (self.on_policy, pairs.on_policy.is_some(), "on-policy weights"),
        ] {
            if needed && !there {
                return Err(CoreError::MissingInput { objective: objective.into(), input: input.into() });
            }
        }
        if self.length_desensitising != pairs.length_desensitised {
            let input = match self.length_desensitising {
                Some(alpha) => format!("token log-probabilities summed with ld-alpha = {alpha}"),
                None => "log-probabilities that sum all tokens in full".into(),
            };
            return Err(CoreError::MissingInput { objective: objective.into(), input });
        }
        if self.earlier > 0 && self.earlier != pairs.earlier.len() {
            return Err(CoreError::Length {
                input: format!("earlier policies of objective `{objective}`"),
                found: pairs.earlier.len(),
                expected: self.earlier,
            });
        }
        Ok(())
    }
}

/// The input, or the error that says which one `objective` misses.
///
/// # Errors
/// [`CoreError::MissingInput`].
pub fn present<T>(objective: &str, input: &str, value: Option<T>) -> Result<T, CoreError> {
    value.ok_or_else(|| CoreError::MissingInput { objective: objective.into(), input: input.into() })
}
