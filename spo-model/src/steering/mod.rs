//! One policy for many users: a few labelled pairs of a user become a vector z, which every decoder block's output is scaled
//! and shifted by (NP-DPO, arXiv 2412.13998), or which weighs the matrices of conditional adapters.
//!
//! ```text
//! c_j = W [e(x_j, y_w); e(x_j, y_l)]          e: the frozen model's last hidden state of an answer, around the pair's middle
//! z   = MLP(Σ_j attention(c, c, c)_j)         no context: the sum is 0
//! h  ← γ(z) ⊙ h + b(z)                        after every block; γ = 1 and b = 0 before the first step
//! ΔW = s [B₁W₁A₁ + B₂(Σₖ cₖ(z) W₂,ₖ)A₂]       in conditional adapters; c the same for all z before the first step
//! ```
//!
//! A model with steering always has a z: that of a user of whom nothing is known, until it is
//! [`steered`](CausalLm::steered) by another.

mod embed;
mod reward;
mod saved;

pub use crate::decoder::{Film, Mixture, TokenZ};
pub use crate::encoder::{Contexts, Encoder, EncoderShape, Steering, SteeringSpec};
pub use embed::{Embedding, embedding_row};
pub use reward::NpReward;
pub use saved::{CONFIG, SavedZ, WEIGHTS, films_beside, load_beside, read_encoder, save_beside};

use crate::CausalLm;
use burn::tensor::{DType, Int, Tensor, TensorData};

/// Whether a module path belongs to what steers: the encoder, a film, or what makes an adapter's coefficients.
pub fn is_steering(path: &str) -> bool {
    path.starts_with("steering.") || path.contains("film.") || path.contains(".core.mixture.")
}

impl CausalLm {
    /// With a fresh encoder, films that change nothing, and in conditional adapters coefficients that are the same for all z.
    ///
    /// # Panics
    /// The heads do not divide the width.
    #[must_use]
    pub fn with_steering(mut self, spec: &SteeringSpec, seed: u64) -> Self {
        let (device, hidden) = (self.device(), self.spec().hidden_size);
        let wide = if self.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let encoder = Encoder::new(&spec.encoder(hidden), seed, &device).cast(wide);
        for block in &mut self.layers {
            block.film = spec.films.then(|| Film::identity(spec.width, hidden, &device, wide));
            for core in block.linears_mut().filter_map(|(_, linear)| linear.lora.as_mut()?.core.as_mut()) {
                core.mixture = vec![Mixture::equal(core.weights().len(), spec.width, &device, wide)];
            }
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
        let by = TokenZ { z, rows };
        self.layers.iter_mut().flat_map(|block| block.conditions_mut()).for_each(|own| *own = by.clone());
        self.steering.as_mut().expect("a model without steering cannot be steered").contexts = None;
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
