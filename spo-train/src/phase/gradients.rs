//! Gradients of several dimensions: made into one, or only looked at.

use crate::TrainError;
use crate::events::Event;
use crate::events::reporter::Reporter;
use crate::phase::Phase;
use crate::phase::step_batch::{Fault, StepBatch, finite};
use crate::step::gradients::Gradients;
use crate::task::{FrontRows, StepTally, Task, Weighing};
use spo_core::cagrad;
use spo_eval::GradientGram;
use spo_model::CausalLm;
use spo_team::Team;

/// Rows whose gradients are compared on the way.
pub struct Probes<'a> {
    /// Steps from one look to the next.
    pub every: u64,
    /// The dimensions, the phase's own first.
    pub dimensions: Vec<Probe<'a>>,
}

/// The rows of one dimension.
pub struct Probe<'a> {
    /// The dimension.
    pub dimension: String,
    /// Its loss; `None` = the phase's own.
    pub task: Option<Box<dyn Task + 'a>>,
    /// Rows of that task.
    pub rows: Vec<usize>,
    /// Its place among the dimensions of a phase that weighs them, and their number.
    pub alone: Option<(usize, usize)>,
}

impl std::fmt::Debug for Probes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.dimensions.iter().map(|probe| probe.dimension.as_str()).collect();
        f.debug_struct("Probes").field("every", &self.every).field("dimensions", &names).finish()
    }
}

impl Phase<'_> {
    /// Looks at the gradients of the dimensions at a policy, where it is time to; nothing is changed by it.
    pub(super) fn probe(
        &self,
        model: &CausalLm,
        task: &dyn Task,
        done: u64,
        reporter: &mut Reporter,
    ) -> Result<(), TrainError> {
        let Some(probes) = self.probes.filter(|probes| done.is_multiple_of(probes.every)) else { return Ok(()) };
        let mut all = vec![];
        for probe in &probes.dimensions {
            let task = probe.task.as_deref().unwrap_or(task);
            let batch = StepBatch::new(self, task, &probe.rows, done, &model.device()).alone(probe.alone);
            // Every process for itself: they are the same.
            match batch.gradients(model, &Team::solo()) {
                Ok((gradients, _)) => all.push(gradients),
                Err(Fault::Error(error)) => return Err(error),
                // The step that comes to the row says so.
                Err(Fault::NotFinite(..)) => return Ok(()),
            }
        }
        let dimensions = probes.dimensions.iter().map(|probe| probe.dimension.clone()).collect();
        let gram = gram(&all);
        if gram.iter().flatten().any(|product| !product.is_finite()) {
            return Ok(());
        }
        let (phase, coefficients) = (self.name.into(), vec![]);
        reporter.emit(Event::Gradients(GradientGram { phase, step: done, dimensions, gram, coefficients }))
    }

    /// One gradient of those of a batch's dimensions, by CAGrad with this `c`.
    pub(super) fn conflict_averse(
        &self,
        batch: &StepBatch,
        model: &CausalLm,
        front: &FrontRows,
        c: f64,
        team: &Team,
    ) -> Result<(Gradients, StepTally, GradientGram), Fault> {
        let Weighing::Fixed(weights) = &front.weighing else {
            let (name, reason) = ("cagrad".into(), "its weights do not change from step to step".into());
            return Err(TrainError::Objective { name, reason }.into());
        };
        let (mut all, mut total) = (vec![], None::<StepTally>);
        for (index, weight) in weights.iter().enumerate() {
            let (gradients, mut tally) = batch.of_dimension(front, index).gradients(model, team)?;
            tally.loss *= weight;
            tally.step_zero = tally.step_zero.map(|loss| loss * weight);
            match &mut total {
                Some(total) => total.merge(tally),
                None => total = Some(tally),
            }
            all.push(gradients);
        }
        let gram = gram(&all);
        for (index, row) in gram.iter().enumerate() {
            finite("the gradient norm", row[index].sqrt())?;
        }
        let coefficients = cagrad::coefficients(&gram, weights, c);
        let mut combined = Gradients::default();
        for (gradients, coefficient) in all.into_iter().zip(&coefficients) {
            combined.merge(gradients.scaled(*coefficient));
        }
        let (phase, dimensions) = (self.name.into(), front.dimensions.clone());
        let gram = GradientGram { phase, step: batch.done(), dimensions, gram, coefficients };
        Ok((combined, total.expect("a front has dimensions"), gram))
    }
}

/// Their inner products.
fn gram(all: &[Gradients]) -> Vec<Vec<f64>> {
    all.iter().map(|first| all.iter().map(|second| first.dot(second)).collect()).collect()
}
