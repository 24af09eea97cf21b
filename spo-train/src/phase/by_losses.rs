//! A step of an optimiser that sees losses alone.

use crate::config::spec::Slopes;
use crate::phase::Phase;
use crate::phase::step::Updated;
use crate::phase::step_batch::{Fault, StepBatch, finite};
use crate::step::optimizer::FromLosses;
use crate::task::StepTally;
use spo_model::CausalLm;
use spo_team::Team;

/// Steps from one measurement of the noise to the next.
pub(crate) const NOISE_EVERY: u64 = 100;

impl Phase<'_> {
    /// Losses → update. Now and then also how far the loss of the first probe is from the same with other micro-batches: its
    /// rounding, which the difference of two losses must stand above.
    pub(super) fn by_losses(
        &self,
        batch: &StepBatch,
        model: CausalLm,
        optimizer: &mut dyn FromLosses,
        learning_rate: f64,
        team: &Team,
    ) -> Result<Updated, Fault> {
        let (mut losses, mut total, mut first, mut noise) = (vec![], StepTally::default(), vec![], None);
        let of_rows = self.training.zeroth_order.is_some_and(|settings| settings.zo_slopes == Slopes::Pairs);
        while let Some(probe) = optimizer.probe(&model, &losses) {
            let second = of_rows && losses.len() % 2 == 1;
            let (tally, difference) = match second {
                true => batch.between(&probe, &first, team)?,
                false => {
                    let (tally, logps) = batch.loss(&probe, team)?;
                    first = logps;
                    (tally, 0.0)
                }
            };
            let loss = finite("the loss", tally.mean_loss())?;
            if losses.is_empty() && batch.done().is_multiple_of(NOISE_EVERY) {
                let again = batch.repacked().loss(&probe, team)?.0.mean_loss();
                noise = Some((again - loss).abs().max(loss.abs() * f64::from(f32::EPSILON) / 2.0));
            }
            total.weight += tally.weight;
            total.merge(tally);
            if second {
                let difference = finite("the difference of two losses", difference)?;
                losses.pop();
                losses.extend([loss + difference / 2.0, loss - difference / 2.0]);
            } else {
                losses.push(loss);
            }
        }
        let signal = losses.first().zip(losses.get(1)).zip(noise).map(|((up, down), noise)| (up - down).abs() / noise);
        let (model, norm) = optimizer.update(model, &losses, learning_rate);
        let norm = finite("the estimate of the gradient norm", norm)?;
        Ok(Updated { model, tally: total, norm, passes: losses.len(), signal, gradients: None })
    }
}
