//! What a batch's micro-batches must know of each other.

use spo_core::PairNumbers;
use spo_core::objective::AnswerNumbers;
use std::sync::Arc;

/// Numbers of a whole batch, cheap to hand to every micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Ahead {
    /// The estimate of the KL from the reference on mismatched prompts and answers, in nats.
    Kl(f64),
    /// Every pair of the batch, for a loss that compares them.
    Pairs(Arc<WholeBatch<PairNumbers>>),
    /// Every answer of the batch, for a loss that compares them.
    Answers(Arc<WholeBatch<AnswerNumbers>>),
    /// The weights that the policy acts with, one for each dimension of the round.
    Weights(Arc<[f64]>),
}

/// Rows with their numbers, in the same order.
#[derive(Debug, Clone, PartialEq)]
pub struct WholeBatch<N> {
    /// The rows.
    pub rows: Vec<usize>,
    /// Their numbers.
    pub numbers: N,
}

impl<N> WholeBatch<N> {
    /// Where these rows stand in the batch.
    pub(super) fn places(&self, rows: &[usize]) -> Vec<usize> {
        let place = |row: &usize| self.rows.iter().position(|other| other == row);
        rows.iter().map(|row| place(row).expect("a micro-batch is part of its batch")).collect()
    }
}
