//! One optimiser step, from top to bottom.

use crate::TrainError;
use crate::events::reporter::Reporter;
use crate::events::{Event, Replayed, StepFigures};
use crate::phase::step_batch::{Fault, StepBatch, finite};
use crate::phase::visits::Visits;
use crate::phase::{Phase, PhaseState};
use crate::step::memory;
use crate::step::optimizer::{Method, Optimizer, clip_factor};
use crate::task::{ReplayTally, StepTally, Task};
use spo_eval::GradientGram;
use spo_model::CausalLm;
use spo_team::Team;
use std::time::Instant;

/// What a step has come to.
pub(super) struct Updated {
    pub model: CausalLm,
    pub tally: StepTally,
    /// Of the mean gradient or its estimate, before clipping.
    pub norm: f64,
    /// How often the batch ran through a model.
    pub passes: usize,
    /// The difference of two losses over the noise of one, where it was measured.
    pub signal: Option<f64>,
    /// The gradients of the dimensions, where they were made into one by more than their weights.
    pub gradients: Option<GradientGram>,
}

impl Phase<'_> {
    /// Rows → micro-batches → gradients → norm → clip → update → figures.
    pub(super) fn step(
        &self,
        state: PhaseState,
        task: &dyn Task,
        visits: &Visits,
        reporter: &mut Reporter,
    ) -> Result<PhaseState, TrainError> {
        let started = Instant::now();
        let (done, number) = (state.step, state.step + 1);
        let rows = visits.batch(done as usize);
        let batch = StepBatch::new(self, task, &rows, done, &state.model.device());
        reporter.team.is_at(|| format!("{}, step {number}", self.name));
        let learning_rate = self.training.learning_rates().after(done);

        let PhaseState { model, mut optimizer, .. } = state;
        let model = match task.weights(done) {
            Some(weights) => model.with_weights(&weights),
            None => model,
        };
        self.probe(&model, task, done, reporter)?;
        let before = reporter.team.spent();
        let updated = self.update((&batch, task), model, optimizer.as_mut(), learning_rate, &reporter.team);
        let Updated { model, tally, norm, passes, signal, gradients } = updated.map_err(|fault| match fault {
            Fault::NotFinite(quantity, found) => {
                let ids: Vec<String> = rows.iter().map(|&row| task.id(row).to_owned()).collect();
                reporter.not_finite(self.name, number, quantity, found, &ids)
            }
            Fault::Error(error) => error,
        })?;

        let mut own = state.own;
        own.add(
            batch.own_tokens(&reporter.team)? * passes as u64,
            started.elapsed(),
            reporter.team.spent().since(before),
        );
        let written = tally.scores.map_or(0, |scores| scores.tokens as u64);
        let (tokens, taken) = (batch.tokens() * passes as u64 + written, started.elapsed());
        let of_dimension = |((dimension, _), sums): ((&str, usize), &ReplayTally)| Replayed {
            dimension: dimension.into(),
            pairs: sums.pairs as usize / passes,
            loss: sums.loss / sums.pairs,
            accuracy: sums.correct / sums.pairs,
        };
        let replayed = task.replayed().into_iter().zip(&tally.replayed).map(of_dimension).collect();
        let mean = |sum: f64| sum / ((rows.len() * passes) as f64 - tally.replayed_pairs());
        let over = |sum: f64, count: f64| (count > 0.0).then(|| sum / count);
        gradients.map_or(Ok(()), |gradients| reporter.emit(Event::Gradients(gradients)))?;
        let pairs = tally.preference.as_ref();
        reporter.emit(Event::Step(StepFigures {
            phase: self.name.into(),
            step: number,
            steps: self.training.steps,
            epoch: number as f64 / visits.steps_per_epoch() as f64,
            loss: tally.own_loss(),
            grad_norm: norm,
            learning_rate,
            accuracy: pairs.map(|sums| mean(sums.correct)),
            margin: pairs.map(|sums| mean(sums.margin)),
            chosen_log_ratio: pairs.and_then(|sums| over(sums.chosen_log_ratio, sums.chosen)),
            rejected_log_ratio: pairs.and_then(|sums| over(sums.rejected_log_ratio, sums.rejected)),
            chosen_tokens: pairs.and_then(|sums| over(sums.chosen_tokens, sums.chosen)),
            margin_offset: pairs.and_then(|sums| sums.margin_offset).map(mean),
            kl: tally.kl(),
            degree_accuracy: tally.degrees.map(|degrees| degrees.accuracy()),
            degree_loss: tally.degrees.map(|degrees| degrees.mean_loss()),
            signal_to_noise: signal,
            score: tally.scores.map(|scores| scores.mean()),
            answer_tokens: tally.scores.map(|scores| scores.tokens / scores.answers),
            replayed,
            tokens,
            seconds: taken.as_secs_f64(),
            memory_bytes: memory::resident_bytes(),
        }))?;
        let (tokens, time) = (state.tokens + tokens, state.time + taken);
        Ok(PhaseState { model, optimizer, step: number, tokens, time, own, ..state })
    }

    /// Gradients → norm → clip → update; or losses → update.
    fn update(
        &self,
        (batch, task): (&StepBatch, &dyn Task),
        model: CausalLm,
        optimizer: &mut dyn Optimizer,
        learning_rate: f64,
        team: &Team,
    ) -> Result<Updated, Fault> {
        let owners = optimizer.owners().cloned();
        match optimizer.method() {
            Method::Gradients(optimizer) if self.training.update_in_backward => {
                let mut squares = 0.0;
                optimizer.begin_step();
                let (model, tally) = batch.gradients_in_parts(model, |model, part| {
                    let norm = finite("the gradient norm", part.norm())?;
                    squares += norm * norm;
                    Ok(optimizer.update(model, part, learning_rate, 1.0))
                })?;
                Ok(Updated { model, tally, norm: squares.sqrt(), passes: 1, signal: None, gradients: None })
            }
            Method::Gradients(optimizer) => {
                let (mut gradients, tally, gram) = match self.training.conflict_aversion().zip(task.front()) {
                    Some((c, front)) => {
                        let (gradients, tally, gram) = self.conflict_averse(batch, &model, front, c, team)?;
                        (gradients, tally, Some(gram))
                    }
                    None => {
                        let (gradients, tally) = batch.gradients(&model, team)?;
                        (gradients, tally, None)
                    }
                };
                // All that follows is of the whole step, on every process that shares it.
                batch.check(&tally, model.dtype())?;
                let norm = finite("the gradient norm", gradients.norm())?;
                let scale = clip_factor(norm, self.training.max_grad_norm);
                optimizer.begin_step();
                let changed = gradients.names().map(str::to_owned).collect();
                let mut model = optimizer.update(model, &mut gradients, learning_rate, scale);
                if let Some(owners) = owners {
                    model = owners.spread(model, &changed, team)?;
                }
                Ok(Updated { model, tally, norm, passes: 1, signal: None, gradients: gram })
            }
            Method::Losses(optimizer) => self.by_losses(batch, model, optimizer, learning_rate, team),
        }
    }
}
