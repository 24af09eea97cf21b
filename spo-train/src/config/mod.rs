//! The run file: what a user writes ([`RunSpec`]) and what it resolves to ([`RunPlan`]).
//!
//! ```no_run
//! use spo_train::config::{Facts, RunSpec, resolve};
//!
//! let mut spec = RunSpec::from_file("run.toml".as_ref())?;
//! spec.apply_set("rounds.1.lambda=0.5")?;
//! let facts = Facts { pairs: [("honesty".to_owned(), 640)].into() };
//! for line in resolve(&spec, &facts)?.lines() {
//!     let _ = format!("{} = {}  ({})", line.key, line.value, line.origin);
//! }
//! # Ok::<(), spo_train::config::ConfigError>(())
//! ```

mod defaults;
mod document;
mod error;
mod objective;
pub mod plan;
mod resolve;
mod schema;
mod set;
pub mod spec;
mod validate;

pub use error::{ConfigError, Place};
pub use plan::{
    ArmPlan, EvaluationPlan, LoraPlan, ModelPlan, Origin, PlanLine, RoundPlan, RunPlan,
    TrainingPlan, WarmupPlan,
};
pub use resolve::{Facts, resolve};
pub use schema::json_schema;
pub use spec::RunSpec;

/// Version of the run file's layout that this version reads.
pub const SCHEMA: u32 = 1;
