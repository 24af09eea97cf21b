//! Rounds, steps, cache, checkpoints and events of sequential preference optimisation

pub mod config;
