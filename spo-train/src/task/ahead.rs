//! What a window's micro-batches must know of each other.

use spo_core::PairNumbers;
use spo_core::objective::AnswerNumbers;
use std::sync::Arc;

/// Numbers of a whole window, cheap to hand to every micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Ahead {
    /// The estimate of the KL from the reference on mismatched prompts and answers, in nats.
    Kl(f64),
    /// Every pair of the window, for a loss that compares them.
    Pairs(Arc<Window<PairNumbers>>),
    /// Every answer of the window, for a loss that compares them.
    Answers(Arc<Window<AnswerNumbers>>),
}

/// Rows with their numbers, in the same order.
#[derive(Debug, Clone, PartialEq)]
pub struct Window<N> {
    /// The rows.
    pub rows: Vec<usize>,
    /// Their numbers.
    pub numbers: N,
}

impl<N> Window<N> {
    /// Where these rows stand in the window.
    pub(super) fn places(&self, rows: &[usize]) -> Vec<usize> {
        let place = |row: &usize| self.rows.iter().position(|other| other == row);
        rows.iter().map(|row| place(row).expect("a micro-batch is part of its window")).collect()
    }
}
