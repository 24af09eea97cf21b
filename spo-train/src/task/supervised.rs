//! Maximum likelihood of preferred answers: the mean over all answer tokens of a batch.

use super::{StepTally, Task};
use crate::TrainError;
use crate::step::tape::{LogpGradients, Scored};
use spo_data::{AnswerRef, Dataset, Group, PackedBatch, Units};

/// Preferred answers of some dimensions, each (prompt, answer) once per label that prefers it.
#[derive(Debug)]
pub struct SupervisedTask<'a> {
    dataset: &'a Dataset,
    rows: Vec<AnswerRef>,
}

impl<'a> SupervisedTask<'a> {
    /// The preferred answer of every pair of these dimensions, and every single answer labelled desirable.
    pub fn new(dataset: &'a Dataset, dimensions: &[String]) -> Self {
        Self::of(dataset, Self::rows(dataset, dimensions))
    }

    /// These answers.
    pub(crate) fn of(dataset: &'a Dataset, rows: Vec<AnswerRef>) -> Self {
        Self { dataset, rows }
    }

    /// The rows of [`new`](Self::new).
    pub(crate) fn rows(dataset: &Dataset, dimensions: &[String]) -> Vec<AnswerRef> {
        let answers = dimensions.iter().flat_map(|dimension| dataset.answers(dimension));
        answers.filter(|row| row.desirable).collect()
    }
}

impl Task for SupervisedTask<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn units(&self) -> Units {
        self.dataset.units(self.rows.iter().map(|row| row.example))
    }

    fn group(&self, row: usize) -> Group<'_> {
        let row = self.rows[row];
        let example = &self.dataset.examples[row.example];
        Group { prompt: &example.prompt, answers: vec![&example.answers[row.answer]] }
    }

    fn id(&self, row: usize) -> &str {
        &self.dataset.examples[self.rows[row].example].id
    }

    fn weight(&self, groups: &[Group]) -> f64 {
        groups.iter().flat_map(|group| &group.answers).map(|answer| answer.len() as f64).sum()
    }

    fn logp_gradients(
        &self,
        _rows: &[usize],
        _batch: &PackedBatch,
        scored: &Scored,
        step: &mut StepTally,
    ) -> Result<LogpGradients, TrainError> {
        step.step_zero = None; // theory does not give its first loss
        step.loss -= scored.logps.iter().map(|logp| f64::from(*logp)).sum::<f64>();
        Ok(vec![(-1.0 / step.weight) as f32; scored.logps.len()].into())
    }
}
