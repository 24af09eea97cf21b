//! One policy for many users: a few labelled pairs of a user become a vector z, which every decoder block's output is scaled
//! and shifted by (NP-DPO, arXiv 2412.13998).
//!
//! ```text
//! c_j = W [e(x_j, y_w); e(x_j, y_l)]          e: the frozen model's last hidden state of an answer, around the pair's middle
//! z   = MLP(Σ_j attention(c, c, c)_j)         no context: the sum is 0
//! h  ← γ(z) ⊙ h + b(z)                        after every block; γ = 1 and b = 0 before the first step
//! ```
//!
//! A model with steering always has a z: that of a user of whom nothing is known, until it is
//! [`steered`](CausalLm::steered) by another.

mod embed;
mod encoder;
mod film;
mod reward;
mod saved;

pub use embed::{Embedding, embedding_row};
pub use encoder::{Contexts, Encoder, EncoderShape};
pub use film::Film;
pub use reward::NpReward;
pub use saved::{CONFIG, SavedZ, WEIGHTS, load_beside, save_beside};

use crate::{CausalLm, ModelSpec};
use burn::module::Module;
use burn::tensor::{DType, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Shape of a model's steering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SteeringSpec {
    /// Numbers of z.
    pub width: usize,
    /// Heads of the attention over contexts; they divide the width.
    pub heads: usize,
    /// Most contexts that it was trained with.
    pub contexts: usize,
}

impl SteeringSpec {
    /// Numbers of the encoder and the films that a model of this spec has.
    pub fn elements(&self, spec: &ModelSpec) -> usize {
        let layer = |outputs: usize, inputs: usize| outputs * (inputs + 1);
        let (width, hidden) = (self.width, spec.hidden_size);
        // A pair's layer, four of the attention, two behind it.
        layer(width, 2 * hidden) + 6 * layer(width, width) + spec.layers.len() * 2 * layer(hidden, width)
    }
}

/// What makes z, beside the decoder.
#[derive(Module, Debug)]
pub struct Steering {
    /// From contexts to z.
    pub encoder: Encoder,
    #[module(skip)]
    spec: SteeringSpec,
    /// What the films' z was computed from: where its gradient goes on to.
    #[module(skip)]
    contexts: Option<Contexts>,
}

impl Steering {
    /// Its shape.
    pub fn spec(&self) -> SteeringSpec {
        self.spec
    }

    /// What z was computed from, where it was computed here.
    pub fn contexts(&self) -> Option<&Contexts> {
        self.contexts.as_ref()
    }
}

/// Whether a module path belongs to what steers: the encoder or a film.
pub fn is_steering(path: &str) -> bool {
    path.starts_with("steering.") || path.contains("film.")
}

impl CausalLm {
    /// With a fresh encoder, and films that change nothing.
    ///
    /// # Panics
    /// The heads do not divide the width.
    #[must_use]
    pub fn with_steering(mut self, spec: &SteeringSpec, seed: u64) -> Self {
        let (device, hidden) = (self.device(), self.spec().hidden_size);
        let wide = if self.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let shape = EncoderShape { inputs: 2 * hidden, width: spec.width, heads: spec.heads, deep: false };
        let encoder = Encoder::new(&shape, seed, &device).cast(wide);
        for block in &mut self.layers {
            block.film = Some(Film::identity(spec.width, hidden, &device, wide));
        }
        self.steering = Some(Steering { encoder, spec: *spec, contexts: None });
        self.unsteered()
    }

    /// Steered by contexts, one z for each of their sets; `rows` says for each token of a batch which of them it goes by,
    /// `None`: all go by the first.
    ///
    /// # Panics
    /// The model has no steering.
    #[must_use]
    pub fn steered_by(self, contexts: &Contexts, rows: Option<&[i32]>) -> Self {
        let steering = self.steering.as_ref().expect("a model without steering cannot be steered");
        let z = steering.encoder.forward(contexts);
        let mut model = self.steered(z, rows);
        if let Some(steering) = &mut model.steering {
            steering.contexts = Some(contexts.clone());
        }
        model
    }

    /// As a model is for a user of whom nothing is known; one without steering stays as it is.
    #[must_use]
    pub fn unsteered(self) -> Self {
        let none = self.steering.as_ref().map(|steering| steering.encoder.no_contexts());
        none.map_or(self.clone(), |none| self.steered_by(&none, None))
    }

    /// Steered by each row of `z`, `[sets, width]`; `rows` as in [`steered_by`](Self::steered_by).
    ///
    /// # Panics
    /// The model has no steering.
    #[must_use]
    pub fn steered(mut self, z: Tensor<2>, rows: Option<&[i32]>) -> Self {
        let device = self.device();
        let rows = rows.map(|rows| Tensor::<1, Int>::from_data(TensorData::new(rows.to_vec(), [rows.len()]), &device));
        for block in &mut self.layers {
            let film = block.film.as_mut().expect("a model without steering cannot be steered");
            (film.z, film.rows) = (z.clone(), rows.clone());
        }
        if let Some(steering) = &mut self.steering {
            steering.contexts = None;
        }
        self
    }

    /// z of each set of contexts, `[sets, width]`.
    ///
    /// # Panics
    /// The model has no steering.
    pub fn z(&self, contexts: &Contexts) -> Tensor<2> {
        self.steering.as_ref().expect("a model without steering has no z").encoder.forward(contexts)
    }
}
