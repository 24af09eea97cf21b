//! A linear layer in the checkpoint's own layout, with an optional adapter on the activation path.

use super::fused;
use crate::ModelError;
use crate::load::WeightSource;
use crate::lora::LoraAdapter;
use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// `y = x Wᵀ + b`, plus `s · (x Aᵀ) Bᵀ` where an adapter is attached.
///
/// The weight keeps the checkpoint's `[out, in]` layout, so that loading and saving copy bytes.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// Low-rank adapter.
    pub lora: Option<LoraAdapter>,
}

impl Linear {
    /// Takes `{path}.weight` and, if `bias`, `{path}.bias` from the source.
    ///
    /// # Errors
    /// As the source: missing tensor, wrong shape, unreadable type.
    pub fn load(source: &mut impl WeightSource, path: &str, shape: [usize; 2], bias: bool) -> Result<Self, ModelError> {
        let weight = Param::from_tensor(source.tensor(&format!("{path}.weight"), shape)?);
        let bias = match bias {
            true => Some(Param::from_tensor(source.tensor(&format!("{path}.bias"), [shape[0]])?)),
            false => None,
        };
        Ok(Self { weight, bias, lora: None })
    }

    /// `[tokens, in]` → `[tokens, out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let adapted = self.lora.as_ref().map(|lora| lora.forward(x.clone()));
        let mut y = product(x, self.weight.val());
        if let Some(bias) = &self.bias {
            y = add_bias(y, bias.val());
        }
        match adapted {
            Some(adapted) => y + adapted,
            None => y,
        }
    }
}

/// `x Wᵀ`: `[tokens, in]` and `[out, in]` → `[tokens, out]`
pub(crate) fn product(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    if let Some(y) = fused::linear(&x, &weight) {
        return y;
    }
    x.matmul(weight.transpose())
}

pub(super) fn add_bias(y: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    if let Some(y) = fused::add_bias(&y, &bias) {
        return y;
    }
    y + bias.unsqueeze()
}
