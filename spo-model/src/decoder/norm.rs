//! Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv 1910.07467).

use super::fused;
use crate::ModelError;
use crate::load::WeightSource;
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};

/// `x / √(mean(x²) + ε) · w`, the mean in f32 whatever the storage type.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[channels]`
    pub weight: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl RmsNorm {
    /// Takes `{path}.weight` from the source.
    ///
    /// # Errors
    /// As the source.
    pub fn load(source: &mut impl WeightSource, path: &str, channels: usize, epsilon: f64) -> Result<Self, ModelError> {
        let weight = Param::from_tensor(source.tensor(&format!("{path}.weight"), [channels])?);
        Ok(Self { weight, epsilon })
    }

    /// Normalises the last dimension of `[…, channels]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if let Some(y) = fused::rms_norm(&x, &self.weight.val(), self.epsilon, 0.0) {
            return y;
        }
        let dtype = x.dtype();
        let wide = if dtype == DType::F64 { x } else { x.cast(DType::F32) };
        let scale = (wide.clone().square().mean_dim(D - 1) + self.epsilon).sqrt().recip();
        (wide * scale).cast(dtype) * self.weight.val().unsqueeze()
    }
}
