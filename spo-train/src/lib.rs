//! Sequential preference optimisation, run end to end: rounds, optimiser steps, the cache of
//! frozen log-probs, policies on disk and events.

pub mod cache;
pub mod config;
pub mod error;
pub mod event;
pub mod gradients;
pub mod held_out;
pub mod memory;
pub mod optimizer;
pub mod phase;
pub mod policy;
pub mod run;
pub mod sampling;
pub mod schedule;
pub mod session;
pub mod sink;
pub mod summary;
pub mod tape;
pub mod task;

pub use error::TrainError;
pub use event::{Event, Sink, Window};
pub use run::{Prepared, prepare, run};
