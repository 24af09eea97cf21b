//! The optimiser of a phase.

use crate::config::RunPlan;
use crate::phase::Phase;
use crate::step::optimizer::{Optimizer, Owners, Projected};
use spo_model::CausalLm;
use spo_model::lora::Complement;
use spo_team::Team;

/// That of the plan before its first step, with the moments dealt to the processes where the plan says so; outside of the
/// directions that the frozen adapters of the model moved most, where the plan says so and there are any.
pub(super) fn optimizer(plan: &RunPlan, phase: &Phase, model: &CausalLm, team: &Team) -> Box<dyn Optimizer> {
    let mut optimizer = phase.training.optimizer(phase.trainable, phase.seed, phase.round);
    if plan.parallel.shares_moments() && !team.is_solo() {
        optimizer.share(Owners::of_model(model, |path| phase.trainable.contains(path), team));
    }
    match plan.lora.as_ref().map_or(0, |lora| lora.project) {
        0 => optimizer,
        count => Box::new(Projected::new(optimizer, Complement::of(model, count))),
    }
}
