//! A task with something to do at each micro-batch.

use spo_data::{Group, PackedBatch};
use spo_train::TrainError;
use spo_train::step::tape::{LogpGradients, Scored};
use spo_train::task::{Ahead, StepAhead, StepTally, Task};

/// A task; `hook` is called before the gradients of each micro-batch's log-probs with its rows and the batch's tallies.
pub struct Hooked<T, F> {
    pub task: T,
    pub hook: F,
}

impl<T: Task, F: Fn(&[usize], &mut StepTally) + Sync> Task for Hooked<T, F> {
    fn len(&self) -> usize {
        self.task.len()
    }
    fn group(&self, row: usize) -> Group<'_> {
        self.task.group(row)
    }
    fn id(&self, row: usize) -> &str {
        self.task.id(row)
    }
    fn weight(&self, groups: &[Group]) -> f64 {
        self.task.weight(groups)
    }
    fn look_ahead(&self, figures: &StepAhead) -> Result<Option<Ahead>, TrainError> {
        self.task.look_ahead(figures)
    }
    fn logp_gradients(
        &self,
        rows: &[usize],
        batch: &PackedBatch,
        scored: &Scored,
        figures: &mut StepTally,
    ) -> Result<LogpGradients, TrainError> {
        (self.hook)(rows, figures);
        self.task.logp_gradients(rows, batch, scored, figures)
    }
}
