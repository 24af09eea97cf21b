//! The optimiser of a phase.

use crate::config::RunPlan;
use crate::phase::Phase;
use crate::step::optimizer::{Optimizer, Projected};
use spo_model::CausalLm;
use spo_model::lora::Complement;

/// That of the plan before its first step; outside of the directions that the frozen adapters of the model moved most,
/// where the plan says so and there are any.
pub(super) fn optimizer(plan: &RunPlan, phase: &Phase, model: &CausalLm) -> Box<dyn Optimizer> {
    let optimizer = phase.training.optimizer(phase.trainable, phase.seed, phase.round);
    match plan.lora.as_ref().map_or(0, |lora| lora.project) {
        0 => optimizer,
        count => Box::new(Projected::new(optimizer, Complement::of(model, count))),
    }
}
