//! Preference objectives, pair log-probabilities and the chunked log-prob head.
//!
//! This crate says what a loss *is*. It does no I/O, keeps no configuration file, logs nothing and draws no random
//! number; everything is a function over tensors or plain numbers.
//!
//! - [`logprob`]: token log-probabilities from hidden states without ever building full logits, and their closed-form
//!   gradient.
//! - [`objective`]: the registry of preference losses, one file each.
//! - [`mod@differentiate`]: losses and gradients of a batch of pairs on plain numbers.
//! - [`cagrad`]: one direction for several losses.
//! - [`dual`]: multipliers that hold earlier dimensions at a stated bound.
//! - [`table`]: losses and gradients of rows of log-probabilities, as JSON.
//! - [`docs`]: the reference of all objectives, from the registry.
//! - [`numerics`]: stable elementary functions.
//!
//! ```
//! use burn::tensor::Device;
//! use spo_core::{PairNumbers, Sides, differentiate, objective};
//!
//! let dpo = objective::build("dpo", &serde_json::Map::new())?;
//! let mut pairs = PairNumbers::new(vec![-12.0], vec![-15.0]);
//! pairs.reference = Some(Sides { chosen: vec![-12.0], rejected: vec![-15.0] });
//! let result = differentiate(dpo.as_ref(), &pairs, &Device::flex())?;
//! assert!((result.losses[0] - 2f64.ln()).abs() < 1e-12); // the policy still is the reference
//! assert!((result.d_chosen[0] + 0.05).abs() < 1e-12);
//! # Ok::<(), spo_core::CoreError>(())
//! ```

pub mod cagrad;
pub mod differentiate;
pub mod docs;
pub mod dual;
pub mod error;
pub mod logprob;
pub mod numerics;
pub mod objective;
pub mod pair;
pub mod table;
mod tensors;

pub use differentiate::{PairGradient, differentiate};
pub use error::CoreError;
pub use objective::{Needs, Objective, ObjectiveSpec, PairLosses};
pub use pair::{PairLogps, PairNumbers, Pairs, Sides};
pub use table::loss_table;
