//! Optimisers that see losses alone: the slope of the loss along a random direction stands in for the gradient. No
//! backward pass runs, so there are neither gradients nor stored activations, and the loss need not have a derivative.

mod frames;
mod mezo;
mod random;
mod subzero;

pub use frames::Frames;
pub use mezo::Mezo;
pub use random::{Key, Role};
pub use subzero::{SubZero, SubZeroConfig};

use crate::step::gradients::Trainable;

/// Settings that the zeroth-order optimisers share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ZerothOrder {
    /// How far along a direction the loss is looked at, above 0; default 1e-3.
    pub epsilon: f64,
    /// Directions whose estimates a step takes the mean of, at least 1; default 1. The variance falls as one over it.
    pub estimates: usize,
    /// Decay of the sum of earlier estimates, in [0, 1); default 0. As in SGD of PyTorch, `m ← momentum · m + g`.
    pub momentum: f64,
    /// Seed of the directions.
    pub seed: u64,
    /// What is trained.
    pub trainable: Trainable,
}

impl Default for ZerothOrder {
    fn default() -> Self {
        Self { epsilon: 1e-3, estimates: 1, momentum: 0.0, seed: 0, trainable: Trainable::All }
    }
}

impl ZerothOrder {
    /// Which estimate the probe of this number is for, and how far it goes along that one's direction: both sides of the
    /// first, then of the second. `None` once there are enough.
    fn side(&self, probe: usize) -> Option<(usize, f64)> {
        let by = if probe.is_multiple_of(2) { self.epsilon } else { -self.epsilon };
        (probe < 2 * self.estimates).then_some((probe / 2, by))
    }

    /// The slope along each direction over the number of directions, of the losses of all probes (SPSA, Spall 1992):
    /// what the directions are multiplied by and summed up with.
    fn slopes(&self, losses: &[f64]) -> Vec<f64> {
        let slope = |sides: &[f64; 2]| (sides[0] - sides[1]) / (2.0 * self.epsilon * self.estimates as f64);
        losses.as_chunks().0.iter().map(slope).collect()
    }
}
