//! Rows of earlier dimensions beside a phase's own, each with the loss and the reference of its round.

use super::{ReplayTally, StepTally, Task};
use crate::TrainError;
use crate::step::tape::{LogpGradients, Scored};
use spo_data::{Group, PackedBatch};

/// The rows of an earlier dimension.
pub struct ReplayedRows<'a> {
    /// The dimension.
    pub dimension: String,
    /// Its rows with the loss of its round.
    pub task: Box<dyn Task + 'a>,
}

/// A task with rows of earlier dimensions behind its own. The mean over all rows of a batch is what a step descends, so a
/// dimension counts by its share of them. All losses are sums over rows of functions of their answers' log-probs.
pub struct ReplayTask<'a> {
    own: Box<dyn Task + 'a>,
    replayed: Vec<ReplayedRows<'a>>,
}

impl<'a> ReplayTask<'a> {
    /// `own` first, then `replayed` in this order.
    pub fn new(own: Box<dyn Task + 'a>, replayed: Vec<ReplayedRows<'a>>) -> Self {
        Self { own, replayed }
    }

    /// The tasks in their order, with the number of the first row that is not theirs.
    fn tasks(&self) -> impl Iterator<Item = (&dyn Task, usize)> {
        let replayed = self.replayed.iter().map(|rows| rows.task.as_ref());
        std::iter::once(self.own.as_ref()).chain(replayed).scan(0, |end, task| {
            *end += task.len();
            Some((task, *end))
        })
    }

    /// Whose a row is, and its number there.
    fn of(&self, row: usize) -> (&dyn Task, usize) {
        let found = self.tasks().find(|(_, end)| row < *end);
        let (task, end) = found.expect("a row is one of a task's");
        (task, row + task.len() - end)
    }
}

impl Task for ReplayTask<'_> {
    fn len(&self) -> usize {
        self.own.len()
    }

    fn replayed(&self) -> Vec<(&str, usize)> {
        self.replayed.iter().map(|rows| (rows.dimension.as_str(), rows.task.len())).collect()
    }

    fn group(&self, row: usize) -> Group<'_> {
        let (task, row) = self.of(row);
        task.group(row)
    }

    fn answers(&self, row: usize) -> Vec<&[u32]> {
        let (task, row) = self.of(row);
        task.answers(row)
    }

    fn id(&self, row: usize) -> &str {
        let (task, row) = self.of(row);
        task.id(row)
    }

    fn margin_offset(&self, rows: &[usize]) -> Result<Option<Vec<f64>>, TrainError> {
        self.own.margin_offset(rows)
    }

    fn hold(&self, lambda: &[f64]) {
        self.own.hold(lambda);
    }

    fn logp_gradients(
        &self,
        rows: &[usize],
        batch: &PackedBatch,
        scored: &Scored,
        step: &mut StepTally,
    ) -> Result<LogpGradients, TrainError> {
        let mut total = vec![0.0; scored.logps.len()];
        let (weight, step_zero) = (step.weight, step.step_zero.map(|_| 0.0));
        let empty = || StepTally { weight, step_zero, ..StepTally::default() };
        let mut found = empty();
        found.replayed.resize(self.replayed.len(), ReplayTally::default());
        let mut first = 0;
        for (index, (task, end)) in self.tasks().enumerate() {
            let (own, part) = part(self, rows, batch, first..end);
            let local: Vec<usize> = own.iter().map(|row| row - first).collect();
            first = end;
            if local.is_empty() {
                continue;
            }
            let mut sums = empty();
            let gradients = task.logp_gradients(&local, &part, scored, &mut sums)?;
            // Every row's gradient is zero outside of its own tokens.
            total.iter_mut().zip(gradients.logps).for_each(|(total, gradient)| *total += gradient);
            if let Some(replayed) = index.checked_sub(1) {
                let correct = sums.preference.map_or(0.0, |sums| sums.correct);
                found.replayed[replayed] = ReplayTally { pairs: local.len() as f64, loss: sums.loss, correct };
                found.loss += sums.loss;
                // The policy is not their reference, so theory says nothing of their loss.
                found.step_zero = found.step_zero.map(|expected| expected + sums.loss);
            } else {
                found.merge(sums);
            }
        }
        step.merge(found);
        Ok(total.into())
    }
}

/// Those of a batch's rows that lie in a range, and the batch with their sequences alone.
fn part(
    task: &ReplayTask,
    rows: &[usize],
    batch: &PackedBatch,
    range: std::ops::Range<usize>,
) -> (Vec<usize>, PackedBatch) {
    let (mut own, mut sequences, mut next) = (vec![], vec![], 0);
    for &row in rows {
        let answers = task.group(row).answers.len();
        if range.contains(&row) {
            own.push(row);
            sequences.extend_from_slice(&batch.sequences[next..next + answers]);
        }
        next += answers;
    }
    (own, PackedBatch { sequences, ..batch.clone() })
}
