//! Maximum likelihood of preferred answers: the mean over all answer tokens of a batch.

use super::{StepTally, Task};
use crate::TrainError;
use crate::step::tape::{Scored, Slopes};
use spo_data::{Dataset, Group, PackedBatch};

/// Preferred answers of some dimensions, each (prompt, answer) once per label that prefers it.
#[derive(Debug)]
pub struct SupervisedTask<'a> {
    dataset: &'a Dataset,
    rows: Vec<(usize, usize)>,
}

impl<'a> SupervisedTask<'a> {
    /// The preferred answer of every pair of these dimensions, and every single answer labelled desirable.
    pub fn new(dataset: &'a Dataset, dimensions: &[String]) -> Self {
        let answers = dimensions.iter().flat_map(|dimension| dataset.answers(dimension));
        Self { dataset, rows: answers.filter(|row| row.desirable).map(|row| (row.example, row.answer)).collect() }
    }
}

impl Task for SupervisedTask<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn group(&self, row: usize) -> Group<'_> {
        let (example, answer) = self.rows[row];
        let example = &self.dataset.examples[example];
        Group { prompt: &example.prompt, answers: vec![&example.answers[answer]] }
    }

    fn id(&self, row: usize) -> &str {
        &self.dataset.examples[self.rows[row].0].id
    }

    fn weight(&self, groups: &[Group]) -> f64 {
        groups.iter().flat_map(|group| &group.answers).map(|answer| answer.len() as f64).sum()
    }

    fn slopes(
        &self,
        _rows: &[usize],
        _batch: &PackedBatch,
        scored: &Scored,
        step: &mut StepTally,
    ) -> Result<Slopes, TrainError> {
        step.step_zero = None; // nothing is known of its first loss
        step.loss -= scored.logps.iter().map(|logp| f64::from(*logp)).sum::<f64>();
        Ok(vec![(-1.0 / step.weight) as f32; scored.logps.len()].into())
    }
}
