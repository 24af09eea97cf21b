//! What a user writes: one struct per section of the run file.
//!
//! Every key is optional unless its text says "required"; absent keys stay `None` here and get
//! their value in [`resolve`](super::resolve), where the origin of each value is recorded.

mod checkpoints;
mod data;
mod evaluation;
mod gate;
mod hold;
mod model;
mod online;
mod round;
mod run;
mod training;
mod watchdog;

pub use checkpoints::{Best, CheckpointSpec};
pub use data::{DataEntry, DataSpec, Split, TextSpec};
pub use evaluation::EvaluationSpec;
pub use gate::{GateConditionsSpec, GateSpec, OnMiss};
pub use hold::{HoldBoundSpec, HoldSpec};
pub use model::{Dtype, LoraRounds, LoraSet, LoraSpec, LoraTargets, ModelSpec, QuantisedBase};
pub use online::{OnlineSpec, Unfinished};
pub use round::{ControlSpec, RoundSpec};
pub use run::{Argument, RunSections, RunSpec, Source};
pub use training::{EarlyStoppingSpec, OptimizerName, Recompute, Schedule, StoppingMetric, TrainingSpec, WarmupSpec};
pub use watchdog::WatchdogSpec;
