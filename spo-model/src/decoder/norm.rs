//! Normalisation layers.

use super::source::WeightSource;
use crate::spec::NormKind;
use crate::{ModelError, ModelSpec};
use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use spo_kernels::rms_norm::rms_norm;

/// RMS norm (Zhang & Sennrich 2019, arXiv 1910.07467), `x / √(mean(x²) + ε) · w`, or layer norm
/// (Ba et al. 2016, arXiv 1607.06450); statistics in f32 whatever the storage type.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[channels]`
    pub weight: Param<Tensor<1>>,
    /// `[channels]`, of layer norms.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    kind: NormKind,
    #[module(skip)]
    epsilon: f64,
    /// Factor on what comes out; 1 but for the final norm of some families.
    #[module(skip)]
    scale: f64,
}

impl Norm {
    /// Takes `{path}.weight` and, for a layer norm, `{path}.bias` from the source.
    ///
    /// # Errors
    /// As the source.
    pub fn load(
        source: &mut impl WeightSource,
        path: &str,
        channels: usize,
        spec: &ModelSpec,
    ) -> Result<Self, ModelError> {
        let mut take = |name: &str| source.tensor(&format!("{path}.{name}"), [channels]).map(Param::from_tensor);
        let weight = take("weight")?;
        let bias = if spec.norm == NormKind::Layer { Some(take("bias")?) } else { None };
        Ok(Self { weight, bias, kind: spec.norm, epsilon: spec.norm_eps, scale: 1.0 })
    }

    /// The norm with a factor on what comes out.
    #[must_use]
    pub fn scaled(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// Normalises the last dimension of `[…, channels]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = self.weight.val();
        let y = match (self.kind, &self.bias) {
            (NormKind::Rms, _) => rms_norm(x, weight, self.epsilon, 0.0),
            // Weights are stored as the distance from 1.
            (NormKind::RmsFromOne, _) => rms_norm(x, weight, self.epsilon, 1.0),
            (NormKind::Layer | NormKind::LayerUnbiased, bias) => {
                layer_norm(x, weight, bias.as_ref().map(Param::val), self.epsilon)
            }
        };
        scaled(y, self.scale)
    }
}

/// RMS norm without a weight.
pub(super) fn unit_norm(x: Tensor<3>, epsilon: f64) -> Tensor<3> {
    let ones = Tensor::ones([x.dims()[2]], (&x.device().inner(), x.dtype()));
    rms_norm(x, ones, epsilon, 0.0)
}

/// `x` times a factor.
pub(super) fn scaled<const D: usize>(x: Tensor<D>, factor: f64) -> Tensor<D> {
    if factor == 1.0 { x } else { x * factor }
}

/// The type of statistics: f32, or f64 where the input is.
fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { dtype } else { DType::F32 }
}

fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Option<Tensor<1>>, epsilon: f64) -> Tensor<D> {
    let dtype = x.dtype();
    let x = x.cast(wide(dtype));
    let centred = x.clone() - x.mean_dim(D - 1);
    let scale = (centred.clone().square().mean_dim(D - 1) + epsilon).sqrt().recip();
    let y = centred * scale * weight.cast(wide(dtype)).unsqueeze();
    let y = match bias {
        Some(bias) => y + bias.cast(wide(dtype)).unsqueeze(),
        None => y,
    };
    y.cast(dtype)
}
