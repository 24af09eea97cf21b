//! What changes the weights: an [`Optimizer`] takes gradients, as [`AdamW`] does, or only losses of models that it asks
//! for, as [`Mezo`] and [`SubZero`] do.

mod adamw;
mod owners;
mod projected;
pub mod zeroth_order;

pub use adamw::{AdamW, AdamWConfig};
pub use owners::Owners;
pub use projected::Projected;
pub use zeroth_order::{Mezo, SubZero, SubZeroConfig, ZerothOrder};

use crate::step::gradients::Gradients;
use crate::step::row_sparse::RowSparse;
use burn::tensor::Tensor;
use spo_model::CausalLm;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// Changes the trained weights of a model, a step at a time. Its settings are its own; the learning rate comes with each
/// step. What it does depends on its settings, its [`state`](Self::state) and the number of the step alone, so that
/// training can go on from any step with the same bits.
pub trait Optimizer: Debug + Send {
    /// What it is given in a step.
    fn method(&mut self) -> Method<'_>;

    /// Whether it has changed the parameter at this module path. Others are still what training began with.
    fn trains(&self, path: &str) -> bool;

    /// What it remembers from one step to the next, by name. With the number of steps it is all that
    /// [`restore`](Self::restore) needs.
    ///
    /// # Shapes
    /// Each value is flat, `[elements]`.
    fn state(&self) -> Box<dyn Iterator<Item = (String, RowSparse)> + '_>;

    /// Becomes the optimiser of these settings after `steps` steps.
    ///
    /// # Errors
    /// What is wrong with the state.
    fn restore(&mut self, steps: u64, state: BTreeMap<String, Tensor<1>>) -> Result<(), String>;

    /// Keeps the state of this process's parameters alone, and leaves the others' as they are, before the first step. An
    /// optimiser without a state of each parameter keeps what it has.
    fn share(&mut self, owners: Owners) {
        let _ = owners;
    }

    /// Who keeps the state of which parameter; `None` where each process has all of it. Then
    /// [`state`](Self::state) is that of this process's parameters, and so is what [`restore`](Self::restore) takes.
    fn owners(&self) -> Option<&Owners> {
        None
    }

    /// The policy that training has come to, to be scored or saved, where the optimiser keeps some of it beside the
    /// weights: as adapters on them, if need be.
    fn policy(&mut self, model: &CausalLm) -> CausalLm {
        model.clone()
    }

    /// The same when training ends: all of it is in the weights.
    fn settle(&mut self, model: CausalLm) -> CausalLm {
        model
    }
}

/// What an optimiser is given in a step.
pub enum Method<'a> {
    /// The gradients of the mean loss of the step's batch.
    Gradients(&'a mut dyn FromGradients),
    /// The mean loss of the step's batch, at each model that it asks for: no backward pass runs.
    Losses(&'a mut dyn FromLosses),
}

/// An optimiser that takes gradients: all of them at once, or those of one part of the model after the other.
pub trait FromGradients {
    /// Begins a step.
    fn begin_step(&mut self);

    /// Updates every parameter that has a gradient, and takes the gradient out. `scale` multiplies the gradients first:
    /// the [`clip_factor`].
    fn update(&mut self, model: CausalLm, gradients: &mut Gradients, learning_rate: f64, scale: f64) -> CausalLm;
}

/// An optimiser that takes losses (zeroth order: MeZO, arXiv 2305.17333; SubZero, arXiv 2410.08989). A step asks for
/// [`probe`](Self::probe)s until there are no more, and ends with one [`update`](Self::update).
pub trait FromLosses {
    /// The model whose loss the step needs next, where `losses` are those of its probes so far, in nats; `None` once
    /// they suffice. `model` is the one that the step began with. A probe depends on the number of the step, so every
    /// process that holds the same state asks for the same one.
    fn probe(&mut self, model: &CausalLm, losses: &[f64]) -> Option<CausalLm>;

    /// The model after the step, and the L2 norm of the gradient's estimate. `losses` are those of all probes.
    fn update(&mut self, model: CausalLm, losses: &[f64], learning_rate: f64) -> (CausalLm, f64);
}

/// The factor that brings a gradient of this norm within `max_norm` (0: no limit), as
/// `torch.nn.utils.clip_grad_norm_` computes it.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
}
