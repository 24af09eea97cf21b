//! Optimiser steps as a library: gradients by the tape, their sums, the optimiser, the learning rate. It knows no run, no
//! run file and no loss: [`tape::differentiate`] asks for the gradient of a loss with respect to each token's log-prob.
//!
//! ```
//! use spo_data::{Group, PackedBatch};
//! use spo_model::{CausalLm, device};
//! use spo_train::step::gradients::Gradients;
//! use spo_train::step::optimizer::{AdamW, AdamWConfig};
//! use spo_train::step::schedule::LearningRate;
//! use spo_train::step::tape::{TapeOptions, differentiate};
//!
//! # let directory = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../spo-cli/assets/stories260K"));
//! let mut model = CausalLm::from_dir(directory, None, &device::cpu())?;
//! // The answer 407 261 378 to the prompt 1 403 shall become likelier.
//! let batch = PackedBatch::new(&[Group { prompt: &[1, 403], answers: vec![&[407, 261, 378]] }]);
//!
//! let mut optimizer = AdamW::new(AdamWConfig { weight_decay: 0.01, ..AdamWConfig::default() });
//! let learning_rate = LearningRate { warmup_steps: 1, ..LearningRate::constant(1e-3) };
//! let mut losses = vec![];
//! for step in 0..4 {
//!     let mut gradients = Gradients::default();
//!     differentiate(&model, &batch, &TapeOptions::default(), &mut gradients, |logps| {
//!         losses.push(-logps.iter().sum::<f32>());
//!         Ok::<_, std::convert::Infallible>(vec![-1.0; logps.len()])
//!     })?;
//!     model = optimizer.step(model, gradients, learning_rate.after(step), 1.0);
//! }
//! assert_eq!(losses[1], losses[0]); // the warm-up begins at rate 0
//! assert!(losses[3] < losses[1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod dropout;
pub mod gradients;
pub mod memory;
pub mod optimizer;
pub mod row_sparse;
pub mod schedule;
mod shared;
pub mod tape;
