//! One AdamW update (Loshchilov & Hutter 2019, arXiv 1711.05101) of a parameter, decay decoupled, ε outside the root of
//! the bias-corrected second moment:
//!
//! `g' = scale · g`, `m ← β₁ m + (1 − β₁) g'`, `v ← β₂ v + (1 − β₂) g'²`,
//! `w ← keep · w − rate · m / (√v / correction + ε)`.

use crate::cpu::Values;
use burn::tensor::Tensor;

/// The numbers of one step for one parameter.
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    /// β₁
    pub beta1: f64,
    /// β₂
    pub beta2: f64,
    /// ε
    pub epsilon: f64,
    /// Factor on the gradient.
    pub scale: f64,
    /// Factor on the weight: 1 − learning rate · decay.
    pub keep: f64,
    /// Learning rate with the first moment's bias correction.
    pub rate: f64,
    /// √ of the second moment's bias correction.
    pub correction: f64,
}

impl AdamW {
    /// Weight, first and second moment after the step, in their own memory where a form can; all `[elements]`.
    pub fn step(self, state: [Tensor<1>; 3], gradient: Tensor<1>) -> [Tensor<1>; 3] {
        if Values::fit(&gradient) && state.iter().all(Values::fit) {
            return self.on_cpu(state, gradient);
        }
        #[cfg(feature = "gpu")]
        let state = match self.on_card(state, &gradient) {
            Ok(state) => return state,
            Err(state) => state,
        };
        self.reference(state, gradient)
    }

    /// The same in burn's operations.
    pub fn reference(self, [weight, first, second]: [Tensor<1>; 3], gradient: Tensor<1>) -> [Tensor<1>; 3] {
        let gradient = gradient * self.scale;
        let first = first * self.beta1 + gradient.clone() * (1.0 - self.beta1);
        let second = second * self.beta2 + gradient.square() * (1.0 - self.beta2);
        let weight = if self.keep == 1.0 { weight } else { weight * self.keep };
        let denominator = second.clone().sqrt() / self.correction + self.epsilon;
        [weight - first.clone() / denominator * self.rate, first, second]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{random, wide};
    use burn::tensor::DType;

    #[test]
    fn steps_follow_the_reference_in_f64() {
        for keep in [1.0, 0.99] {
            let [weight, first, gradient] = [(); 3].map(|()| random([50_001]));
            // Second moments away from 0, where a quotient would magnify the rounding of f32.
            let state = [weight, first, random([50_001]).square() + 0.1];
            let (beta1, beta2) = (0.9, 0.999);
            let form = AdamW { beta1, beta2, epsilon: 1e-8, scale: 0.7, keep, rate: 1e-2, correction: 0.3 };
            let exact = |x: &Tensor<1>| x.clone().cast(DType::F64);
            let expected = form.reference(state.each_ref().map(exact), exact(&gradient));
            let found = form.step(state, gradient);
            for (found, expected) in found.iter().zip(&expected) {
                let near = |(a, b): (f64, f64)| (a - b).abs() <= 1e-6 * b.abs().max(0.1);
                assert!(wide(found).into_iter().zip(wide(expected)).all(near));
            }
        }
    }
}
