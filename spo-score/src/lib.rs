//! Who says how good an answer is: one trait, and the kinds of scorers that a run file or a command line can name.
//!
//! A [`ScorerSpec`] is what a user writes, `rules:length=60` or a table with `kind`; a [`Registry`] opens it.
//! Scores are numbers, more is better; no kind has a unit or a range of its own but what its page says.
//!
//! ```
//! use spo_data::PromptText;
//! use spo_score::{Item, NoModels, Opening, Registry, ScorerSpec};
//!
//! let spec: ScorerSpec = "rules:length=3,ends=1".parse()?;
//! let mut scorer = Registry::builtin().open(&spec, &Opening { models: &NoModels, log: None, directory: None })?;
//! let item = |response: &str| Item {
//!     id: "1".into(),
//!     prompt: PromptText::Text("Why?".into()),
//!     response: response.into(),
//!     ..Item::default()
//! };
//! let scores = scorer.score(&[item("Because it is."), item("Because")], &mut |_| true)?;
//! assert_eq!(scores[0].as_ref().and_then(|scores| scores.of(None)), Some(1.0));
//! assert!(scores[1].as_ref().and_then(|scores| scores.of(None)) < Some(0.0));
//! # Ok::<(), spo_score::ScoreError>(())
//! ```

mod entry;
mod error;
mod item;
mod kind;
mod models;
pub mod pairing;
mod registry;
mod spec;

pub use entry::{Entry, Open, OpenError, Opener, Opening, decoded};
pub use error::ScoreError;
pub use item::{Item, Scorer, Scores, Watch};
pub use models::{LoadedPolicy, Models, NoModels};
pub use registry::Registry;
pub use spec::ScorerSpec;
