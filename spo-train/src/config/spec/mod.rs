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
mod parallel;
mod round;
mod run;
mod steering;
mod track;
mod training;
mod watchdog;

pub use checkpoints::{Best, CheckpointSpec};
pub use data::{DataEntry, DataSpec, Split, TextSpec};
pub use evaluation::EvaluationSpec;
pub use gate::{GateConditionsSpec, GateSpec, OnMiss};
pub use hold::{HoldBoundSpec, HoldOn, HoldSpec};
pub use model::{Dtype, LoraCondition, LoraRounds, LoraSet, LoraSpec, LoraTargets, ModelSpec, QuantisedBase};
pub use online::{OnlineSpec, Unfinished};
pub use parallel::{OptimizerState, ParallelSpec};
pub use round::{Combine, ControlSpec, Dimensions, MetaUse, RoundSpec};
pub use run::{Argument, Located, RunSections, RunSpec, Source};
pub use steering::SteeringSpec;
pub use track::TrackSpec;
pub use training::{
    EarlyStoppingSpec, OptimizerName, Recompute, Schedule, Slopes, StoppingMetric, TrainingSpec, WarmupSpec,
};
pub use watchdog::WatchdogSpec;
