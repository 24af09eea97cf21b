//! The longest row of a phase, run before its first step.

use crate::TrainError;
use crate::phase::step_batch::{Fault, StepBatch};
use crate::phase::visits::Visits;
use crate::phase::{Phase, PhaseState};
use crate::step::optimizer::Method;
use crate::task::Task;
use spo_team::Team;

/// Phases of fewer steps come to their longest row soon without a check.
const CHECKED_FROM_STEPS: u64 = 100;

impl Phase<'_> {
    /// Runs the longest row that the phase visits and drops what it gives, unless the coming batch takes as much
    /// memory: what does not suffice for it shows now, not hours later. A batch that is updated in the backward pass is
    /// one micro-batch of its own and changes the model; it is not checked.
    pub(super) fn check_memory(
        &self,
        state: &mut PhaseState,
        task: &dyn Task,
        visits: &Visits,
        team: &Team,
    ) -> Result<(), TrainError> {
        let steps_left = self.training.steps.saturating_sub(state.step);
        if self.training.update_in_backward || steps_left < CHECKED_FROM_STEPS {
            return Ok(());
        }
        let tokens = |row: &usize| task.group(*row).tokens();
        let visited = self.visits(task.units());
        let visited = (0..task.len()).filter(|row| visited[*row]);
        let replayed = task.replayed().into_iter().map(|(_, rows)| rows).sum::<usize>();
        let all = visited.chain(task.len()..task.len() + replayed);
        let Some(longest) = all.max_by_key(tokens) else { return Ok(()) };
        let (device, rows) = (state.model.device(), visits.batch(state.step as usize));
        if StepBatch::new(self, task, &rows, state.step, &device).most_tokens() >= tokens(&longest) {
            return Ok(());
        }
        let (longest, model) = ([longest], &state.model);
        let batch = StepBatch::new(self, task, &longest, state.step, &device);
        let ran = match state.optimizer.method() {
            // Every process for itself: each may come to the row.
            Method::Gradients(_) => batch.gradients(model, &Team::solo()).map(drop),
            // But a scorer is asked once.
            Method::Losses(_) if task.is_written() => batch.loss(model, team).map(drop),
            Method::Losses(_) => batch.loss(model, &Team::solo()).map(drop),
        };
        match ran {
            // The step that comes to the row says so, and saves it.
            Err(Fault::NotFinite(..)) => Ok(()),
            Err(Fault::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }
}
