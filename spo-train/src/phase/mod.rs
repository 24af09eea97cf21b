//! A phase of optimiser steps: batches of a task until its steps are done.

mod by_losses;
pub mod checkpoint;
pub mod gate;
pub mod gradients;
pub mod hold;
mod loss_scale;
mod memory_check;
pub(crate) mod pace;
pub(crate) mod shards;
pub mod state;
mod step;
mod step_batch;
pub mod stopping;
mod stored;
pub(crate) mod visits;

use crate::TrainError;
use crate::config::TrainingPlan;
use crate::config::spec::Best;
use crate::evaluate::held_out_loss::HeldOutTasks;
use crate::events::Event;
use crate::events::reporter::Reporter;
use crate::persist::durable::Mark;
use crate::phase::checkpoint::Checkpoints;
use crate::phase::gradients::Probes;
use crate::phase::hold::Hold;
use crate::phase::pace::Pace;
use crate::phase::stopping::Stopping;
use crate::step::gradients::Trainable;
use crate::task::Task;
pub(crate) use by_losses::NOISE_EVERY;
pub use pace::Work;
pub use state::PhaseState;
use std::path::PathBuf;
use std::time::Instant;
pub use step_batch::kept_activations;
pub(crate) use step_batch::side_by_side;

/// What a phase is called and how it visits its task.
#[derive(Debug)]
pub struct Phase<'a> {
    /// Name of the phase and of the policy it makes.
    pub name: &'a str,
    /// Number of the round in the run, 0 for the warm-up: part of the data order's seed.
    pub round: u64,
    /// Optimiser settings.
    pub training: &'a TrainingPlan,
    /// What is trained.
    pub trainable: Trainable,
    /// Seed of the run.
    pub seed: u64,
    /// Bounds that its λ follows; `None` where λ is fixed.
    pub hold: Option<&'a Hold<'a>>,
    /// Parts of each step's batch whose gradients are added in a balanced tree; 1 = all one after the other.
    pub shards: usize,
    /// Rows whose gradients are compared on the way; `None` = none are.
    pub probes: Option<&'a Probes<'a>>,
}

impl Phase<'_> {
    /// Trains a model until the phase's steps are done. With `held_out` and `eval-every` the running
    /// policy is evaluated between steps, and `stopping` may end the phase there.
    ///
    /// # Errors
    /// A value that is not finite, a first loss that contradicts the theory, an objective's error,
    /// an event that could not be written, or the user's interruption.
    pub fn run(
        &self,
        mut state: PhaseState,
        task: &dyn Task,
        held_out: Option<&HeldOutTasks>,
        mut stopping: Stopping,
        mut checkpoints: Option<&mut Checkpoints>,
        reporter: &mut Reporter,
    ) -> Result<PhaseState, TrainError> {
        if task.is_empty() {
            return Err(TrainError::no_pairs(self.name));
        }
        let replayed: Vec<usize> = task.replayed().into_iter().map(|(_, rows)| rows).collect();
        let visits = self.schedule(task.units(), &replayed);
        self.check_memory(&mut state, task, &visits, &reporter.team)?;
        let tasks: Vec<&dyn Task> = [task].into_iter().chain(held_out.map(|held_out| held_out.own.as_ref())).collect();
        if let Some(hold) = self.hold {
            let events = reporter.mark()?;
            match hold.begin(self, &mut state, &tasks, reporter) {
                // Then the phase begins on resuming.
                Err(TrainError::Interrupted { out }) => return Err(self.interrupt(&state, checkpoints, events, out)),
                begun => begun?,
            }
        }
        let mut pace = Pace::default();
        loop {
            if let Some(hold) = self.hold.filter(|hold| hold.due(&state, self.training.steps)) {
                let events = reporter.mark()?;
                match hold.update(self, &mut state, &tasks, reporter) {
                    // Then λ is moved on resuming.
                    Err(TrainError::Interrupted { out }) => {
                        return Err(self.interrupt(&state, checkpoints, events, out));
                    }
                    updated => updated?,
                }
            }
            if let Some(held_out) = held_out.filter(|_| self.evaluation_due(&state)) {
                let events = reporter.mark()?;
                let best_by = checkpoints.as_ref().map_or(Best::None, |checkpoints| checkpoints.best_by());
                match self.evaluate(&mut state, held_out, best_by, &mut stopping, reporter) {
                    // Then the evaluation is done again on resuming.
                    Err(TrainError::Interrupted { out }) => {
                        return Err(self.interrupt(&state, checkpoints, events, out));
                    }
                    evaluated => evaluated?,
                }
            }
            let due = checkpoints.as_ref().is_some_and(|all| all.due(self.name, state.step));
            let (due, stop) = reporter.due_or_stopping(due)?;
            if let Some(checkpoints) = checkpoints.as_deref_mut().filter(|_| due) {
                checkpoints.save(self.name, &state, reporter.mark()?)?;
                stopping.settle(&state)?;
            }
            if stop {
                let events = reporter.mark()?;
                return Err(self.interrupt(&state, checkpoints, events, reporter.out.clone()));
            }
            if state.step >= self.training.steps || state.evaluations.end() {
                state.model = state.optimizer.settle(state.model);
                return stopping.finish(state, self.training.steps, reporter);
            }
            state = self.step(state, task, &visits, reporter)?;
            pace.look(self.name, &state, reporter)?;
        }
    }

    /// The error that ends an interrupted run, after a checkpoint of the phase. `events` is how far the event file
    /// counts.
    fn interrupt(
        &self,
        state: &PhaseState,
        checkpoints: Option<&mut Checkpoints>,
        events: Option<Mark>,
        out: PathBuf,
    ) -> TrainError {
        let missing = checkpoints.filter(|checkpoints| !checkpoints.is_at(self.name, state.step));
        let saved = missing.map_or(Ok(()), |checkpoints| checkpoints.save(self.name, state, events));
        saved.err().unwrap_or(TrainError::Interrupted { out })
    }

    /// Evaluates the running policy.
    fn evaluate(
        &self,
        state: &mut PhaseState,
        held_out: &HeldOutTasks,
        best_by: Best,
        stopping: &mut Stopping,
        reporter: &mut Reporter,
    ) -> Result<(), TrainError> {
        let started = Instant::now();
        let found = held_out.evaluate(&state.policy(), (self.name, self.training), state.step, reporter)?;
        reporter.emit(Event::HeldOut(found.clone()))?;
        stopping.evaluated(state, &found, reporter)?;
        state.evaluated = state.step;
        state.time += started.elapsed();
        let value = held_out.value(&found, best_by);
        if value.is_some_and(|value| state.best.is_none_or(|best| value > best)) {
            state.best = value;
            stopping.keep_best(state)?;
        }
        Ok(())
    }

    /// Whether the running policy is to be evaluated now.
    fn evaluation_due(&self, state: &PhaseState) -> bool {
        let (every, step) = (self.training.eval_every, state.step);
        every > 0 && step > state.evaluated && (step.is_multiple_of(every) || step == self.training.steps)
    }
}
