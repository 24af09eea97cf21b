//! What a phase learns: which rows it visits and the slope of its loss at each token.

mod preference;
mod supervised;

pub use preference::PreferenceTask;
pub use supervised::SupervisedTask;

use crate::TrainError;
use spo_data::{Group, PackedBatch, micro_batches};

/// A loss over rows, normalised over the whole window.
pub trait Task: Sync {
    /// Number of rows: pairs, or answers.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens of a row.
    fn group(&self, row: usize) -> Group<'_>;

    /// Name of a row, for reports.
    fn id(&self, row: usize) -> &str;

    /// What the window's sums are divided by: its pairs, or its answer tokens.
    fn weight(&self, groups: &[Group]) -> f64;

    /// The window's micro-batches: indices into `lengths`, the tokens of its groups.
    ///
    /// # Errors
    /// The loss couples all pairs of a window and they do not fit one micro-batch.
    fn split(&self, lengths: &[usize], token_budget: usize) -> Result<Vec<Vec<usize>>, TrainError> {
        Ok(micro_batches(lengths, token_budget))
    }

    /// For the rows of one micro-batch: adds to the window's tallies and returns the derivative of
    /// the window's loss with respect to each token log-prob, `[rows of the batch]`.
    ///
    /// # Errors
    /// The objective lacks an input or gave a value that is not finite.
    fn slopes(
        &self,
        rows: &[usize],
        batch: &PackedBatch,
        logps: &[f32],
        window: &mut WindowTally,
    ) -> Result<Vec<f32>, TrainError>;
}

/// Sums over the pairs (or answer tokens) of one window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WindowTally {
    /// Pairs, or answer tokens, of the whole window: what sums are divided by.
    pub weight: f64,
    /// Sum of losses.
    pub loss: f64,
    /// Sums that only preference tasks have.
    pub preference: Option<PreferenceTally>,
    /// Loss that the window must have if the policy still is the reference, summed; where known.
    pub step_zero: Option<f64>,
}

impl WindowTally {
    /// Adds the sums of another micro-batch of the same window.
    pub fn merge(&mut self, other: Self) {
        self.loss += other.loss;
        self.step_zero = self.step_zero.zip(other.step_zero).map(|(a, b)| a + b);
        if let Some(other) = other.preference {
            let sums = self.preference.get_or_insert_default();
            sums.correct += other.correct;
            sums.margin += other.margin;
            sums.chosen_log_ratio += other.chosen_log_ratio;
            sums.rejected_log_ratio += other.rejected_log_ratio;
            sums.chosen_tokens += other.chosen_tokens;
            if let Some(carry) = other.carry {
                *sums.carry.get_or_insert_default() += carry;
            }
        }
    }
}

/// Sums over pairs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PreferenceTally {
    /// Pairs whose chosen answer has the higher reward.
    pub correct: f64,
    /// Reward margins.
    pub margin: f64,
    /// Log-ratios of the chosen answers to the reference.
    pub chosen_log_ratio: f64,
    /// Log-ratios of the rejected answers.
    pub rejected_log_ratio: f64,
    /// Tokens of the chosen answers.
    pub chosen_tokens: f64,
    /// SPO's `c`, if the objective has one.
    pub carry: Option<f64>,
}
