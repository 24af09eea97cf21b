//! One optimiser step, from top to bottom.

use crate::TrainError;
use crate::events::reporter::Reporter;
use crate::events::{Event, StepFigures};
use crate::phase::step_batch::{Fault, StepBatch, finite};
use crate::phase::{Phase, PhaseState};
use crate::step::memory;
use crate::step::optimizer::{Method, Optimizer, clip_factor};
use crate::task::{StepTally, Task};
use spo_data::Order;
use spo_model::CausalLm;
use std::time::Instant;

/// What a step has come to.
struct Updated {
    model: CausalLm,
    tally: StepTally,
    /// Of the mean gradient or its estimate, before clipping.
    norm: f64,
    /// How often the batch ran through a model.
    passes: usize,
}

impl Phase<'_> {
    /// Rows → micro-batches → gradients → norm → clip → update → figures.
    pub(super) fn step(
        &self,
        state: PhaseState,
        task: &dyn Task,
        order: &Order,
        reporter: &mut Reporter,
    ) -> Result<PhaseState, TrainError> {
        let started = Instant::now();
        let (done, number) = (state.step, state.step + 1);
        let rows = order.batch(done as usize);
        let batch = StepBatch::new(self, task, &rows, done, &state.model.device());
        let learning_rate = self.training.learning_rates().after(done);

        let PhaseState { model, mut optimizer, .. } = state;
        let model = match task.weights(done) {
            Some(weights) => model.with_weights(&weights),
            None => model,
        };
        let updated = self.update(&batch, model, optimizer.as_mut(), learning_rate);
        let Updated { model, tally, norm, passes } = updated.map_err(|fault| match fault {
            Fault::NotFinite(quantity, found) => {
                let ids: Vec<String> = rows.iter().map(|&row| task.id(row).to_owned()).collect();
                reporter.not_finite(self.name, number, quantity, found, &ids)
            }
            Fault::Error(error) => error,
        })?;

        let (tokens, taken) = (batch.tokens() * passes as u64, started.elapsed());
        let mean = |sum: f64| sum / (rows.len() * passes) as f64;
        let over = |sum: f64, count: f64| (count > 0.0).then(|| sum / count);
        let pairs = tally.preference.as_ref();
        reporter.emit(Event::Step(StepFigures {
            phase: self.name.into(),
            step: number,
            steps: self.training.steps,
            epoch: number as f64 / order.steps_per_epoch() as f64,
            loss: tally.mean_loss(),
            grad_norm: norm,
            learning_rate,
            accuracy: pairs.map(|sums| mean(sums.correct)),
            margin: pairs.map(|sums| mean(sums.margin)),
            chosen_log_ratio: pairs.and_then(|sums| over(sums.chosen_log_ratio, sums.chosen)),
            rejected_log_ratio: pairs.and_then(|sums| over(sums.rejected_log_ratio, sums.rejected)),
            chosen_tokens: pairs.and_then(|sums| over(sums.chosen_tokens, sums.chosen)),
            margin_offset: pairs.and_then(|sums| sums.margin_offset).map(mean),
            kl: tally.kl(),
            tokens,
            seconds: taken.as_secs_f64(),
            memory_bytes: memory::resident_bytes(),
        }))?;
        let (tokens, time) = (state.tokens + tokens, state.time + taken);
        Ok(PhaseState { model, optimizer, step: number, tokens, time, ..state })
    }

    /// Gradients → norm → clip → update; or losses → update.
    fn update(
        &self,
        batch: &StepBatch,
        model: CausalLm,
        optimizer: &mut dyn Optimizer,
        learning_rate: f64,
    ) -> Result<Updated, Fault> {
        match optimizer.method() {
            Method::Gradients(optimizer) if self.training.update_in_backward => {
                let mut squares = 0.0;
                optimizer.begin_step();
                let (model, tally) = batch.gradients_in_parts(model, |model, part| {
                    let norm = finite("the gradient norm", part.norm())?;
                    squares += norm * norm;
                    Ok(optimizer.update(model, part, learning_rate, 1.0))
                })?;
                Ok(Updated { model, tally, norm: squares.sqrt(), passes: 1 })
            }
            Method::Gradients(optimizer) => {
                let (mut gradients, tally) = batch.gradients(&model)?;
                // Where several processes share a step they add up both here: all that follows is of the whole step.
                batch.check(&tally, model.dtype())?;
                let norm = finite("the gradient norm", gradients.norm())?;
                let scale = clip_factor(norm, self.training.max_grad_norm);
                optimizer.begin_step();
                let model = optimizer.update(model, &mut gradients, learning_rate, scale);
                Ok(Updated { model, tally, norm, passes: 1 })
            }
            Method::Losses(optimizer) => {
                let (mut losses, mut total) = (vec![], StepTally::default());
                while let Some(probe) = optimizer.probe(&model, &losses) {
                    // Here too.
                    let tally = batch.loss(&probe)?;
                    losses.push(finite("the loss", tally.mean_loss())?);
                    total.weight += tally.weight;
                    total.merge(tally);
                }
                let (model, norm) = optimizer.update(model, &losses, learning_rate);
                let norm = finite("the estimate of the gradient norm", norm)?;
                Ok(Updated { model, tally: total, norm, passes: losses.len() })
            }
        }
    }
}
