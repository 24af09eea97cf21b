//! A phase of optimiser steps: batches of a task until its steps are done.

pub mod checkpoint;
pub mod gate;
pub mod state;
pub mod stopping;

use crate::TrainError;
use crate::config::TrainingPlan;
use crate::config::spec::{Best, Recompute};
use crate::evaluate::held_out_loss::HeldOutTasks;
use crate::events::reporter::Reporter;
use crate::events::{Event, StepFigures};
use crate::persist::durable::Mark;
use crate::phase::checkpoint::Checkpoints;
use crate::phase::stopping::Stopping;
use crate::step::dropout::with_dropout;
use crate::step::gradients::{Gradients, Trainable};
use crate::step::memory;
use crate::step::optimizer::clip_factor;
use crate::step::schedule::learning_rate;
use crate::step::tape::{Scored, TapeOptions, differentiate_in_parts, differentiate_scored};
use crate::task::{StepAhead, StepTally, Task};
use burn::tensor::{DType, Device};
use rayon::prelude::*;
use spo_core::logprob::HeadOptions;
use spo_data::{Group, Order, PackedBatch, micro_batches};
use spo_model::device::on_cpu;
use spo_model::load::Storage;
use spo_model::memory::{Batch, Training};
use spo_model::{CausalLm, ModelSpec};
pub use state::PhaseState;
use std::path::PathBuf;
use std::time::Instant;

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
}

/// What a batch has come to.
struct Updated {
    state: PhaseState,
    tally: StepTally,
    /// Of the mean gradient, before clipping.
    norm: f64,
    tokens: u64,
}

/// Activations that [`Recompute::Auto`] keeps in memory before it starts to recompute, bytes.
pub const AUTO_ACTIVATION_BYTES: usize = 2 << 30;

/// Models up to this size run several micro-batches at once on the CPU: their matrices are too
/// small to keep all cores busy, and their gradients small enough to hold one set per thread.
const SIDE_BY_SIDE_PARAMETERS: usize = 8_000_000;

/// Phases of fewer steps come to their longest row soon without a rehearsal.
const REHEARSED_FROM_STEPS: u64 = 100;

impl Phase<'_> {
    /// Trains a model until the phase's steps are done. With `held_out` and `eval-every` the running
    /// policy is looked at on the way, and `stopping` may end the phase there.
    ///
    /// # Errors
    /// A value that is not finite, a first loss that contradicts the theory, an objective's error,
    /// an event that could not be kept, or the user's interruption.
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
            return Err(TrainError::NoPairs { what: self.name.into() });
        }
        let order = self.order(task.len());
        self.check_memory(&state, task, &order)?;
        loop {
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
            if let Some(checkpoints) = checkpoints.as_deref_mut().filter(|kept| kept.due(self.name, state.step)) {
                checkpoints.save(self.name, &state, reporter.mark()?)?;
                stopping.settle(&state)?;
            }
            if reporter.stopping() {
                let events = reporter.mark()?;
                return Err(self.interrupt(&state, checkpoints, events, reporter.out.clone()));
            }
            if state.step >= self.training.steps || state.evaluations.end() {
                return stopping.finish(state, self.training.steps, reporter);
            }
            state = self.step(state, task, &order, reporter)?;
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

    /// Runs the longest row that the phase visits and drops what it gives, unless the coming batch takes as much
    /// memory: what does not suffice for it shows now, not hours later. A batch that is updated in backward is one
    /// micro-batch of its own and changes the model; it is not rehearsed.
    fn check_memory(&self, state: &PhaseState, task: &dyn Task, order: &Order) -> Result<(), TrainError> {
        let steps_left = self.training.steps.saturating_sub(state.step);
        if self.training.update_in_backward || steps_left < REHEARSED_FROM_STEPS {
            return Ok(());
        }
        let tokens = |row: &usize| task.group(*row).tokens();
        let visited = self.visits(task.len());
        let visited = (0..task.len()).filter(|row| visited[*row]);
        let Some(longest) = visited.max_by_key(tokens) else { return Ok(()) };
        let lengths: Vec<usize> = order.batch(state.step as usize).iter().map(tokens).collect();
        let batches = micro_batches(&lengths, self.training.micro_batch_tokens(&state.model.device()));
        let together = |members: &Vec<usize>| members.iter().map(|member| lengths[*member]).sum();
        if batches.iter().map(together).max().unwrap_or(0) >= tokens(&longest) {
            return Ok(());
        }
        match self.gradients(&state.model, task, &[longest], state.step) {
            // The step that comes to the row says so, and saves it.
            Err(TrainError::NotFinite { .. }) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Evaluations at the running policy.
    fn evaluate(
        &self,
        state: &mut PhaseState,
        held_out: &HeldOutTasks,
        best_by: Best,
        stopping: &mut Stopping,
        reporter: &mut Reporter,
    ) -> Result<(), TrainError> {
        let started = Instant::now();
        let found = held_out.evaluate(&state.model, (self.name, self.training), state.step, reporter)?;
        reporter.emit(Event::HeldOut(found.clone()))?;
        stopping.look(state, &found, reporter)?;
        state.evaluated = state.step;
        state.time += started.elapsed();
        let value = held_out.value(&found, best_by);
        if value.is_some_and(|value| state.best.is_none_or(|best| value > best)) {
            state.best = value;
            stopping.keep_best(state)?;
        }
        Ok(())
    }

    /// One optimiser step.
    fn step(
        &self,
        state: PhaseState,
        task: &dyn Task,
        order: &Order,
        reporter: &mut Reporter,
    ) -> Result<PhaseState, TrainError> {
        let (started, step) = (Instant::now(), state.step);
        let rows = order.batch(step as usize);
        let outcome = match self.training.update_in_backward {
            true => self.update_in_backward(state, task, &rows),
            false => self.update(state, task, &rows),
        };
        if let Err(TrainError::NotFinite { quantity, found, .. }) = outcome {
            reporter.check_finite(self.name, step + 1, &[(quantity, found)], || ids(task, &rows))?;
        }
        let Updated { mut state, tally, norm, tokens } = outcome?;
        let rate = learning_rate(self.training, step);
        let mut figures = self.figures(&tally, step, norm, rate, rows.len(), order.steps_per_epoch());
        state.step += 1;
        state.tokens += tokens;
        figures.tokens = tokens;
        state.time += started.elapsed();
        figures.seconds = started.elapsed().as_secs_f64();
        figures.memory_bytes = memory::resident_bytes();
        reporter.emit(Event::Step(figures))?;
        Ok(state)
    }

    /// Sums the gradients of a batch and updates the model with them.
    fn update(&self, mut state: PhaseState, task: &dyn Task, rows: &[usize]) -> Result<Updated, TrainError> {
        let step = state.step;
        let (gradients, mut tally, tokens) = self.gradients(&state.model, task, rows, step)?;
        let norm = gradients.norm();
        if state.model.has_dropout() {
            tally.step_zero = None;
        }
        self.check(&tally, step, state.model.dtype())?;
        self.finite(step, "the gradient norm", norm)?;
        let scale = clip_factor(norm, self.training.max_grad_norm);
        let rate = learning_rate(self.training, step);
        state.model = state.optimizer.step(state.model, gradients, self.training, rate, scale);
        Ok(Updated { state, tally, norm, tokens })
    }

    /// The same in one micro-batch, each part of the model on the way back.
    fn update_in_backward(&self, state: PhaseState, task: &dyn Task, rows: &[usize]) -> Result<Updated, TrainError> {
        let PhaseState { model, mut optimizer, step, .. } = state;
        let groups: Vec<Group> = rows.iter().map(|&row| task.group(row)).collect();
        let lengths: Vec<usize> = groups.iter().map(Group::tokens).collect();
        let (batches, head) = (micro_batches(&lengths, usize::MAX), self.head());
        let token_budget = self.training.micro_batch_tokens(&model.device());
        let ahead =
            task.look_ahead(&StepAhead { model: &model, rows, batches: &batches, token_budget, head: &head })?;
        let mut tally = StepTally {
            weight: task.weight(&groups),
            step_zero: (step == 0).then_some(0.0),
            ahead,
            ..Default::default()
        };
        let members = &batches[0];
        let batch = PackedBatch::new(&members.iter().map(|&member| groups[member].clone()).collect::<Vec<_>>());
        let of_batch: Vec<usize> = members.iter().map(|&member| rows[member]).collect();
        let (options, dtype) = (self.tape_options(&model, &batch), model.dtype());
        let (rate, mut squares) = (learning_rate(self.training, step), 0.0);
        optimizer.begin_step();
        let slopes = |scored: &Scored| {
            self.finite_logps(step, scored.logps)?;
            let slopes = task.slopes(&of_batch, &batch, scored, &mut tally)?;
            // Nothing has been changed yet.
            self.check(&tally, step, dtype)?;
            Ok::<_, TrainError>(slopes)
        };
        let model =
            differentiate_in_parts(model, &batch, &options, &mut Gradients::default(), slopes, |model, part| {
                let norm = part.norm();
                self.finite(step, "the gradient norm", norm)?;
                squares += norm * norm;
                Ok(optimizer.update(model, part, self.training, rate, 1.0))
            })?;
        let state = PhaseState { model, optimizer, ..state };
        Ok(Updated { state, tally, norm: squares.sqrt(), tokens: batch.tokens() as u64 })
    }

    /// Whether the running policy is to be evaluated now.
    fn evaluation_due(&self, state: &PhaseState) -> bool {
        let (every, step) = (self.training.eval_every, state.step);
        every > 0 && step > state.evaluated && (step.is_multiple_of(every) || step == self.training.steps)
    }

    /// In which order the rows of a task are visited.
    fn order(&self, rows: usize) -> Order {
        Order {
            n: rows,
            batch: self.training.pairs_per_step,
            seed: self.seed,
            round: self.round,
            shuffle: self.training.shuffle,
        }
    }

    /// Tokens of all steps, where a row has so many.
    pub(crate) fn tokens(&self, lengths: &[usize]) -> u64 {
        let order = self.order(lengths.len());
        let per_epoch = order.steps_per_epoch().max(1) as u64;
        let (whole, all) = (self.training.steps / per_epoch, lengths.iter().sum::<usize>() as u64);
        let rest = (whole * per_epoch..self.training.steps).flat_map(|step| order.batch(step as usize));
        whole * all + rest.map(|row| lengths[row] as u64).sum::<u64>()
    }

    /// The rows in the order of the first epoch.
    pub fn epoch(&self, rows: usize) -> Vec<usize> {
        let order = self.order(rows);
        (0..order.steps_per_epoch()).flat_map(|step| order.batch(step)).collect()
    }

    /// Whether the phase comes to each of `rows` rows before its steps are over.
    pub fn visits(&self, rows: usize) -> Vec<bool> {
        let order = self.order(rows);
        let mut visited = vec![false; rows];
        for step in 0..self.training.steps.min(order.steps_per_epoch() as u64) {
            order.batch(step as usize).into_iter().for_each(|row| visited[row] = true);
        }
        visited
    }

    /// The gradients of a batch's mean loss, its sums, and the tokens it took.
    ///
    /// Micro-batches of a small model on the CPU run side by side, a few at a time; their gradients
    /// are added in their own order, so the sum does not depend on the number of threads.
    fn gradients(
        &self,
        model: &CausalLm,
        task: &dyn Task,
        rows: &[usize],
        step: u64,
    ) -> Result<(Gradients, StepTally, u64), TrainError> {
        let groups: Vec<Group> = rows.iter().map(|&row| task.group(row)).collect();
        let lengths: Vec<usize> = groups.iter().map(Group::tokens).collect();
        let token_budget = self.training.micro_batch_tokens(&model.device());
        let batches = micro_batches(&lengths, token_budget);
        let ahead = task.look_ahead(&StepAhead { model, rows, batches: &batches, token_budget, head: &self.head() })?;
        let empty = StepTally {
            weight: task.weight(&groups),
            step_zero: (step == 0).then_some(0.0),
            ahead,
            ..Default::default()
        };
        let micro_batch = |members: &Vec<usize>, gradients: &mut Gradients| {
            let batch = PackedBatch::new(&members.iter().map(|&member| groups[member].clone()).collect::<Vec<_>>());
            let of_batch: Vec<usize> = members.iter().map(|&member| rows[member]).collect();
            let options = self.tape_options(model, &batch);
            let mut tally = empty.clone();
            let dropped = with_dropout(model, &batch, members, [self.seed, self.round, step]);
            differentiate_scored(dropped.as_ref().unwrap_or(model), &batch, &options, gradients, |scored| {
                self.finite_logps(step, scored.logps)?;
                task.slopes(&of_batch, &batch, scored, &mut tally)
            })?;
            Ok::<_, TrainError>((tally, batch.tokens() as u64))
        };
        let (mut gradients, mut tally, mut tokens) = (Gradients::default(), empty.clone(), 0);
        let side_by_side = side_by_side(&model.device(), model.spec());
        let wave = if side_by_side { rayon::current_num_threads() } else { 1 };
        for members in batches.chunks(wave) {
            if !side_by_side {
                let (sums, count) = micro_batch(&members[0], &mut gradients)?;
                tally.merge(sums);
                tokens += count;
                continue;
            }
            let run = |members| {
                let mut own = Gradients::default();
                micro_batch(members, &mut own).map(|(sums, count)| (own, sums, count))
            };
            for (own, sums, count) in members.par_iter().map(run).collect::<Result<Vec<_>, _>>()? {
                gradients.merge(own);
                tally.merge(sums);
                tokens += count;
            }
        }
        Ok((gradients, tally, tokens))
    }

    /// Refuses a value that is not finite. The caller saves the rows of the batch and says where.
    fn finite(&self, step: u64, quantity: &'static str, found: f64) -> Result<(), TrainError> {
        if found.is_finite() {
            return Ok(());
        }
        let (phase, saved) = (self.name.to_string(), std::path::PathBuf::new());
        Err(TrainError::NotFinite { phase, step: step + 1, quantity, found, saved })
    }

    fn finite_logps(&self, step: u64, logps: &[f32]) -> Result<(), TrainError> {
        logps.iter().try_for_each(|logp| self.finite(step, "a token log-prob", f64::from(*logp)))
    }

    /// What a batch's sums must be, before the model is changed.
    fn check(&self, tally: &StepTally, step: u64, dtype: DType) -> Result<(), TrainError> {
        self.finite(step, "the loss", tally.loss / tally.weight)?;
        if step == 0 { self.check_step_zero(tally, dtype) } else { Ok(()) }
    }

    fn tape_options(&self, model: &CausalLm, batch: &PackedBatch) -> TapeOptions {
        let recompute = match self.training.recompute {
            Recompute::Auto if activation_bytes(model, batch) > AUTO_ACTIVATION_BYTES => Recompute::Blocks,
            Recompute::Auto => Recompute::None,
            chosen => chosen,
        };
        TapeOptions { recompute, trainable: self.trainable, head: self.head() }
    }

    fn head(&self) -> HeadOptions {
        HeadOptions { chunk_rows: self.training.head_chunk_rows, ..Default::default() }
    }

    fn figures(
        &self,
        tally: &StepTally,
        step: u64,
        norm: f64,
        rate: f64,
        rows: usize,
        per_epoch: usize,
    ) -> StepFigures {
        let pairs = tally.preference.as_ref();
        let mean = |sum: f64| sum / rows as f64;
        let over = |sum: f64, count: f64| (count > 0.0).then(|| sum / count);
        StepFigures {
            phase: self.name.into(),
            step: step + 1,
            steps: self.training.steps,
            epoch: (step + 1) as f64 / per_epoch as f64,
            loss: tally.loss / tally.weight,
            grad_norm: norm,
            learning_rate: rate,
            accuracy: pairs.map(|sums| mean(sums.correct)),
            margin: pairs.map(|sums| mean(sums.margin)),
            chosen_log_ratio: pairs.and_then(|sums| over(sums.chosen_log_ratio, sums.chosen)),
            rejected_log_ratio: pairs.and_then(|sums| over(sums.rejected_log_ratio, sums.rejected)),
            chosen_tokens: pairs.and_then(|sums| over(sums.chosen_tokens, sums.chosen)),
            margin_offset: pairs.and_then(|sums| sums.margin_offset).map(mean),
            kl: tally.kl(),
            tokens: 0,
            seconds: 0.0,
            memory_bytes: 0,
        }
    }

    /// Before the first step the policy is the reference, so the loss is known: `ln 2` for DPO,
    /// `mean softplus(c)` for SPO.
    fn check_step_zero(&self, tally: &StepTally, dtype: DType) -> Result<(), TrainError> {
        let Some(expected) = tally.step_zero else { return Ok(()) };
        let (found, expected) = (tally.loss / tally.weight, expected / tally.weight);
        let allowed = if dtype == DType::F32 { 1e-3 } else { 5e-2 };
        if (found - expected).abs() > allowed * expected.abs().max(1.0) {
            return Err(TrainError::StepZero { phase: self.name.into(), found, expected });
        }
        Ok(())
    }
}

fn ids(task: &dyn Task, rows: &[usize]) -> Vec<String> {
    rows.iter().map(|&row| task.id(row).to_string()).collect()
}

/// Whether micro-batches of a model of this spec run side by side.
pub(crate) fn side_by_side(device: &Device, spec: &ModelSpec) -> bool {
    on_cpu(device) && spec.parameters() <= SIDE_BY_SIDE_PARAMETERS
}

/// What the tapes of all blocks hold for one micro-batch.
fn activation_bytes(model: &CausalLm, batch: &PackedBatch) -> usize {
    let host = on_cpu(&model.device());
    let storage = Storage::of_dtype(model.dtype()).unwrap_or(Storage::F32);
    let training =
        Training { storage, blocks: None, lora: None, frozen_ranks: 0, fused: host && storage == Storage::F32 };
    let scores = if host { 0 } else { batch.groups.len() * batch.longest_group().pow(2) };
    let batch = Batch { tokens: batch.tokens(), rows: batch.targets.len(), scores };
    training.activations(model.spec(), batch, false).expect("without adapters there are no targets")
}
