//! What a phase learns: which rows it visits and the slope of its loss at each token.

mod ahead;
mod answers;
pub mod build;
mod inputs;
mod lists;
mod pairs;
mod supervised;
mod tally;

pub use ahead::Ahead;
pub use answers::{Mismatched, UnpairedTask};
pub use inputs::{PairInputs, Sampled};
pub use lists::ListTask;
pub use pairs::PreferenceTask;
pub use supervised::SupervisedTask;
pub use tally::{PreferenceTally, StepTally};

use crate::TrainError;
use crate::step::tape::{Scored, Slopes};
use spo_core::logprob::HeadOptions;
use spo_data::{Group, PackedBatch};
use spo_model::CausalLm;

/// A batch before its micro-batches are differentiated.
#[derive(Debug)]
pub struct StepAhead<'a> {
    /// The policy in training.
    pub model: &'a CausalLm,
    /// The rows of the batch.
    pub rows: &'a [usize],
    /// Its micro-batches: indices into `rows`.
    pub batches: &'a [Vec<usize>],
    /// Most tokens of a micro-batch.
    pub token_budget: usize,
    /// The log-prob head.
    pub head: &'a HeadOptions,
}

/// A loss over rows, normalised over the whole batch. What it does with a batch depends on the batch's rows and the
/// policy alone, so that a run can go on from any step.
pub trait Task: Sync {
    /// Number of rows: pairs, answers or lists.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens of a row.
    fn group(&self, row: usize) -> Group<'_>;

    /// Name of a row, for reports.
    fn id(&self, row: usize) -> &str;

    /// What the batch's sums are divided by: its rows, or its answer tokens.
    fn weight(&self, groups: &[Group]) -> f64 {
        groups.len() as f64
    }

    /// What [`slopes`](Self::slopes) must know of the batch's other rows, from a forward pass without a tape; nothing
    /// for a loss that is a sum over rows.
    ///
    /// # Errors
    /// As `slopes`.
    fn look_ahead(&self, step: &StepAhead) -> Result<Option<Ahead>, TrainError> {
        let _ = step;
        Ok(None)
    }

    /// For the rows of one micro-batch: adds to the batch's tallies and returns the derivative of
    /// the batch's loss with respect to what the head gives.
    ///
    /// # Errors
    /// The objective lacks an input or gave a value that is not finite.
    fn slopes(
        &self,
        rows: &[usize],
        batch: &PackedBatch,
        scored: &Scored,
        step: &mut StepTally,
    ) -> Result<Slopes, TrainError>;
}

/// The sum of each sequence's token log-probs.
fn sums(batch: &PackedBatch, logps: &[f32]) -> Vec<f64> {
    batch.sequences.iter().map(|tokens| logps[tokens.clone()].iter().map(|logp| f64::from(*logp)).sum()).collect()
}

/// The same slope at every token of a sequence.
fn spread(batch: &PackedBatch, of_sequence: impl Iterator<Item = f64>, tokens: usize) -> Vec<f32> {
    let mut slopes = vec![0.0; tokens];
    for (rows, slope) in batch.sequences.iter().zip(of_sequence) {
        slopes[rows.clone()].fill(slope as f32);
    }
    slopes
}
