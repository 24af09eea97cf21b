//! Sequential preference optimisation, run end to end: rounds, optimiser steps, the cache of
//! frozen log-probs, policies on disk and events.

pub mod config;
pub mod error;
pub mod event;

pub use error::TrainError;
pub use event::{Event, Sink, Window};
