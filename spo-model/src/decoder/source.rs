//! Where a model takes its weights from, and one that makes them up.

use super::blocks::BlockBits;
use super::kept::StoredWeight;
use crate::ModelError;
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Where a model takes its weights from while it is built.
pub trait WeightSource {
    /// The tensor at a module path such as `layers.0.mlp.up_proj.weight`.
    ///
    /// # Errors
    /// Whatever the source finds wrong with it.
    fn tensor<const D: usize>(&mut self, path: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError>;

    /// The matrix `[out, in]` at a module path in the blocks of its file, where it is to be kept in them.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    fn kept(&mut self, path: &str, shape: [usize; 2]) -> Result<Option<StoredWeight>, ModelError> {
        let _ = (path, shape);
        Ok(None)
    }

    /// Whether the linear layers of the decoder blocks are to be quantised.
    fn blocks(&self) -> Option<BlockBits> {
        None
    }
}

/// Matrices from N(0, 0.02), norms at 1, biases at 0; the same on every device for one seed.
#[derive(Debug)]
pub struct RandomSource {
    rng: ChaCha8Rng,
    device: Device,
}

impl RandomSource {
    /// A source that starts from this seed.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), device: device.clone() }
    }
}

impl WeightSource for RandomSource {
    fn tensor<const D: usize>(&mut self, path: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
        let count = shape.iter().product();
        let values: Vec<f32> = match path {
            _ if D > 1 => (0..count).map(|_| 0.02 * standard_normal(&mut self.rng)).collect(),
            _ if path.ends_with("bias") => vec![0.0; count],
            _ => vec![1.0; count],
        };
        Ok(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }
}

/// One draw from N(0, 1) by the Box–Muller transform.
pub(crate) fn standard_normal(rng: &mut ChaCha8Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    (radius * (2.0 * std::f64::consts::PI * rng.random::<f64>()).cos()) as f32
}
