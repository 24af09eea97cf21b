//! Sequential preference optimisation, run end to end: rounds, optimiser steps, the cache of
//! frozen log-probs, policies on disk and events.
//!
//! [`prepare()`](prepare()) reads and checks everything a run file names, [`run()`](run()) carries it out in its run
//! directory. What happens is an [`Event`] to a [`Sink`]; nothing is printed. [`step`] and [`task`] are the parts for a
//! loop of one's own.
//!
//! ```
//! use spo_train::config::RunSpec;
//! use spo_train::events::sink::Memory;
//! use std::sync::atomic::AtomicBool;
//!
//! # let out = tempfile::tempdir()?;
//! let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../spo-cli/assets");
//! let mut spec = RunSpec::from_str("run.toml", r#"
//!     schema = 1
//!     holdout = 0.2
//!     model = { path = "stories260K", device = "cpu" }
//!     data = [{ path = "pairs.jsonl.gz", limit = 60 }]
//!     training = { steps = 2, pairs-per-step = 4 }
//!     rounds = [{ dimension = "honesty" }]
//!     evaluation = { bootstrap-resamples = 100, kl-samples = 0, samples = 0 }
//! "#)?;
//! spec.apply_set(&format!("model.path={assets}/stories260K"))?;
//! spec.apply_set(&format!("data.0.path={assets}/truthfulqa/pairs.train.jsonl.gz"))?;
//! spec.apply_set(&format!("out={}", out.path().join("run").display()))?;
//!
//! let mut events = Memory::default();
//! let prepared = spo_train::prepare(&spec, &mut events)?;
//! let summary = spo_train::run(prepared, &mut events, &AtomicBool::new(false))?;
//! assert_eq!(summary.matrix.len(), 1); // round 1, on its dimension
//! assert!(out.path().join("run/model/model.safetensors").exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod config;
pub mod error;
pub mod evaluate;
pub mod events;
pub mod forecast;
pub mod persist;
pub mod phase;
pub mod policy;
pub mod run;
pub mod step;
pub mod sweep;
pub mod task;

pub use error::TrainError;
pub use events::{Event, Sink, StepFigures};
pub use persist::directory::Change;
pub use run::manifest::Manifest;
pub use run::{Prepared, keep_dropped, prepare, prepare_on, resume, resume_together, run, run_together};
