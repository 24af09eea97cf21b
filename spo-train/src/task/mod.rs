//! What a phase learns: its rows, and the gradient of its loss with respect to each token's log-prob.

mod ahead;
mod answers;
pub(crate) mod build;
mod check;
pub(crate) mod contexts;
pub(crate) mod data;
mod degrees;
mod front;
mod inputs;
mod lists;
mod pairs;
mod replay;
mod rewards;
mod scored;
mod steered;
mod supervised;
mod tally;

pub use ahead::Ahead;
pub use answers::{Mismatched, UnpairedTask};
pub use degrees::{DegradedRows, DegreeTerm};
pub use front::{FrontRows, Weighing, WeightDraws};
pub use inputs::{PairInputs, Sampled};
pub use lists::ListTask;
pub use pairs::PreferenceTask;
pub use replay::{ReplayTask, ReplayedRows};
pub use rewards::{RewardPair, RewardTask};
pub use scored::ScoreTally;
pub(crate) use scored::{Judged, ScoredTask};
pub use supervised::SupervisedTask;
pub use tally::{DegreeTally, PreferenceTally, ReplayTally, StepTally};

use crate::TrainError;
use crate::step::tape::{LogpGradients, Scored};
use spo_core::logprob::HeadOptions;
use spo_data::{Group, PackedBatch, Units};
use spo_model::CausalLm;
use spo_team::Team;

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
    /// The processes that share the step: each looks at some of the rows, and all have the same numbers then.
    pub team: &'a Team,
}

/// A micro-batch's rows among those of its step.
#[derive(Debug)]
pub struct StepRows<'a> {
    /// The rows of the step's batch.
    pub all: &'a [usize],
    /// Those of the micro-batch, in its order.
    pub rows: &'a [usize],
    /// Steps done before this one.
    pub done: u64,
}

/// A loss over rows, normalised over the whole batch. What it does with a batch depends on the batch's rows, the
/// policy and the λ that it was last given, so that a run can go on from any step.
pub trait Task: Sync {
    /// Number of rows: pairs, answers or lists. Those that are replayed are not among them.
    fn len(&self) -> usize;

    /// The earlier dimensions whose rows stand behind the own ones, in every step some of them, and how many rows they have.
    fn replayed(&self) -> Vec<(&str, usize)> {
        vec![]
    }

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which rows belong together: a batch has all of them or none.
    fn units(&self) -> Units {
        Units::single(self.len())
    }

    /// The tokens of a row.
    fn group(&self, row: usize) -> Group<'_>;

    /// The answers of a row that its sequences are about: those of [`group`](Self::group), without what stands behind them.
    fn answers(&self, row: usize) -> Vec<&[u32]> {
        self.group(row).answers
    }

    /// Name of a row, for reports.
    fn id(&self, row: usize) -> &str;

    /// The dimensions that the rows are of, where they are weighed.
    fn front(&self) -> Option<&FrontRows> {
        None
    }

    /// The weights of the step after `done` steps, in a round that weighs several dimensions: the policy acts with them.
    fn weights(&self, done: u64) -> Option<Vec<f64>> {
        let _ = done;
        None
    }

    /// Whether the score head's values are the answers' rewards, by which they are compared.
    fn gives_rewards(&self) -> bool {
        false
    }

    /// The groups of some rows in one batch, for the heads of this model.
    fn pack(&self, model: &CausalLm, rows: &[usize], groups: &[Group]) -> PackedBatch {
        let _ = (model, rows);
        PackedBatch::new(groups)
    }

    /// What the batch's sums are divided by: its rows, or its answer tokens.
    fn weight(&self, groups: &[Group]) -> f64 {
        groups.len() as f64
    }

    /// The model as it is for the rows of a micro-batch, where it depends on them, as on the user that a row is of; `None`:
    /// it is the same for all.
    fn condition(&self, model: &CausalLm, step: &StepRows, batch: &PackedBatch) -> Option<CausalLm> {
        let _ = (model, step, batch);
        None
    }

    /// What [`logp_gradients`](Self::logp_gradients) must know of the batch's other rows, from a forward pass without a tape; nothing
    /// for a loss that is a sum over rows.
    ///
    /// # Errors
    /// As `logp_gradients`.
    fn look_ahead(&self, step: &StepAhead) -> Result<Option<Ahead>, TrainError> {
        let _ = step;
        Ok(None)
    }

    /// Whether the loss is of answers that the model writes.
    fn is_written(&self) -> bool {
        false
    }

    /// The sums of some rows at a model where the loss is of answers that the model writes, with random numbers that are the
    /// same for every model; the processes of the team write them together. With `otherwise` other sequences are computed
    /// together: what differs is rounding. `None`: the loss is of log-probs.
    ///
    /// # Errors
    /// The scorer's, or that it judged no answer.
    fn written(
        &self,
        model: &CausalLm,
        step: &StepRows,
        otherwise: bool,
        team: &Team,
    ) -> Result<Option<StepTally>, TrainError> {
        let _ = (model, step, otherwise, team);
        Ok(None)
    }

    /// SPO's `c` on some rows; it depends on frozen policies and λ only. `None` where the loss has none.
    ///
    /// # Errors
    /// The objective lacks an input.
    fn margin_offset(&self, rows: &[usize]) -> Result<Option<Vec<f64>>, TrainError> {
        let _ = rows;
        Ok(None)
    }

    /// Takes another λ for each earlier round, where the loss holds earlier rounds.
    fn hold(&self, lambda: &[f64]) {
        let _ = lambda;
    }

    /// For the rows of one micro-batch: adds to the batch's tallies and returns the gradient of
    /// the batch's mean loss with respect to what the head gives.
    ///
    /// # Shapes
    /// - `rows`: the task's rows in the order of `batch.groups`
    /// - `scored` and what is returned: `[rows]` of `batch`, one for each token that is predicted
    ///
    /// # Errors
    /// The objective lacks an input or gave a value that is not finite.
    fn logp_gradients(
        &self,
        rows: &[usize],
        batch: &PackedBatch,
        scored: &Scored,
        step: &mut StepTally,
    ) -> Result<LogpGradients, TrainError>;
}

/// The sum of each sequence's token log-probs.
fn sums(batch: &PackedBatch, logps: &[f32]) -> Vec<f64> {
    batch.sequences.iter().map(|tokens| logps[tokens.clone()].iter().map(|logp| f64::from(*logp)).sum()).collect()
}

/// The gradient with respect to each token's log-prob, `[tokens]`, the same at every token of a sequence.
fn spread(batch: &PackedBatch, of_sequence: impl Iterator<Item = f64>, tokens: usize) -> Vec<f32> {
    let mut logp_gradients = vec![0.0; tokens];
    for (rows, gradient) in batch.sequences.iter().zip(of_sequence) {
        logp_gradients[rows.clone()].fill(gradient as f32);
    }
    logp_gradients
}
