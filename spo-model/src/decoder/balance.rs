//! The loss that spreads tokens over the experts of a mixture: `E · Σ_e f_e P_e` (Fedus et al. 2021, arXiv 2101.03961, eq. 4),
//! where `f_e` is how many of the experts of a token are `e`, and `P_e` how probable the router makes it, both on average over
//! the tokens of all blocks, as transformers takes them.

use super::Experts;
use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};

/// What blocks have added up to.
#[derive(Debug, Clone, Default)]
pub struct Balance {
    assigned: Vec<f64>,
    probable: Vec<f64>,
    rows: f64,
}

impl Balance {
    /// Adds the tokens of a block by its router's scores, `[tokens, experts]`.
    pub fn add(&mut self, experts: &Experts, scores: &Tensor<2>) {
        let [tokens, count] = scores.dims();
        self.assigned.resize(count, 0.0);
        self.probable.resize(count, 0.0);
        for (sum, tokens) in self.assigned.iter_mut().zip(experts.route(scores).tokens) {
            *sum += tokens.len() as f64;
        }
        let probable = softmax(scores.clone().inner(), 1).sum_dim(0).into_data();
        self.probable.iter_mut().zip(probable.iter::<f64>()).for_each(|(sum, of_block)| *sum += of_block);
        self.rows += tokens as f64;
    }

    /// The loss; 0 without a mixture.
    pub fn loss(&self) -> f64 {
        let products = self.assigned.iter().zip(&self.probable).map(|(assigned, probable)| assigned * probable);
        let experts = self.assigned.len() as f64;
        if self.rows > 0.0 { experts * products.sum::<f64>() / (self.rows * self.rows) } else { 0.0 }
    }

    /// The gradient of `weight` times the loss with respect to a block's scores, `[tokens, experts]`. Which experts a token
    /// has does not change with small steps.
    pub fn gradient(&self, weight: f64, scores: Tensor<2>) -> Tensor<2> {
        let experts = self.assigned.len();
        let factor = weight * experts as f64 / (self.rows * self.rows);
        let of_expert = self.assigned.iter().map(|assigned| factor * assigned).collect::<Vec<f64>>();
        let scores = scores.inner();
        let of_expert = TensorData::new(of_expert, [1, experts]);
        let of_expert = Tensor::<2>::from_data(of_expert, (&scores.device(), scores.dtype()));
        let probable = softmax(scores, 1);
        let mean = (probable.clone() * of_expert.clone()).sum_dim(1);
        probable * (of_expert - mean)
    }
}
