//! The run file: what a user writes ([`RunSpec`]) and what it resolves to ([`RunPlan`]).

pub mod plan;
pub mod spec;

pub use plan::{
    ArmPlan, EvaluationPlan, LoraPlan, ModelPlan, Origin, PlanLine, RoundPlan, RunPlan,
    TrainingPlan, WarmupPlan,
};
