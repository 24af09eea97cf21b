//! xIELU (Huang & Schlag 2024, arXiv 2411.13010).

use super::source::WeightSource;
use crate::ModelError;
use burn::module::{Module, Param};
use burn::tensor::{Tensor, activation::softplus};

/// `αp x² + β x` above 0, `αn (e^min(x, ε) − 1 − x) + β x` below, where `αp = softplus(alpha_p)` and
/// `αn = β + softplus(alpha_n)`. β and ε are constants that the checkpoint holds; only the slopes are trained.
#[derive(Module, Debug)]
pub struct Xielu {
    /// `[1]`
    pub alpha_p: Param<Tensor<1>>,
    /// `[1]`
    pub alpha_n: Param<Tensor<1>>,
    /// `[1]`
    pub beta: Param<Tensor<1>>,
    /// `[1]`
    pub eps: Param<Tensor<1>>,
}

impl Xielu {
    /// Takes the four numbers below `path` from the source.
    ///
    /// # Errors
    /// As the source.
    pub fn load(source: &mut impl WeightSource, path: &str) -> Result<Self, ModelError> {
        let mut take = |name: &str| source.tensor(&format!("{path}.{name}"), [1]).map(Param::from_tensor);
        Ok(Self { alpha_p: take("alpha_p")?, alpha_n: take("alpha_n")?, beta: take("beta")?, eps: take("eps")? })
    }

    /// `[tokens, channels]` → the same shape
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let number = |of: &Param<Tensor<1>>| of.val().unsqueeze::<2>();
        let (beta, eps) = (number(&self.beta), number(&self.eps));
        let above = x.clone().square() * softplus(number(&self.alpha_p), 1.0);
        let slope = softplus(number(&self.alpha_n), 1.0) + beta.clone();
        let below = (x.clone().min_pair(x.zeros_like() + eps).exp() - 1.0 - x.clone()) * slope;
        let positive = x.clone().greater_elem(0.0);
        below.mask_where(positive, above) + x * beta
    }
}
