//! The run file: what a user writes ([`RunSpec`]) and what it resolves to ([`RunPlan`]).
//!
//! ```
//! use spo_train::config::{Facts, RunSpec, init, resolve};
//!
//! let mut spec = RunSpec::from_str("run.toml", &init::template())?;
//! spec.apply_set("rounds.1.lambda=0.5")?;
//! let facts = Facts {
//!     pairs: [("honesty".to_owned(), 640), ("helpfulness".to_owned(), 640)].into(),
//!     context_length: Some(2048),
//!     ..Facts::default()
//! };
//! let plan = resolve(&spec, &facts)?;
//! assert_eq!(plan.rounds[1].main().objective, "spo");
//! let lines: Vec<String> = plan
//!     .lines()
//!     .iter()
//!     .map(|line| format!("{} = {}  ({})", line.key, line.value, line.origin))
//!     .collect();
//! # Ok::<(), spo_train::config::ConfigError>(())
//! ```

mod defaults;
mod document;

pub mod init;
mod migrate;
mod objective;
pub mod plan;
pub mod reference;
mod registries;
mod resolve;
pub mod schema;
mod set;
mod sources;
pub mod spec;
mod validate;
mod words;

pub use crate::error::{ConfigError, Place};
pub(crate) use objective::holds_earlier;
pub(crate) use plan::unshared;
pub use plan::{
    ArmPlan, Bound, CheckpointPlan, CombinePlan, Condition, DataShape, EarlyStoppingPlan, EvaluationPlan,
    GateConditions, GatePlan, HeldPlan, HoldPlan, LoraPlan, ModelPlan, OnlinePlan, Origin, ParallelPlan, PlanLine,
    RoundPlan, RunPlan, SampledPlan, SteeringPlan, TrackPlan, TrainingPlan, WarmupPlan, WatchdogPlan, ZerothOrderPlan,
};
pub use registries::Registries;
pub use resolve::{Facts, resolve};
pub use spec::RunSpec;

/// Version of the run file's layout that this version reads.
pub const SCHEMA: u32 = 1;
