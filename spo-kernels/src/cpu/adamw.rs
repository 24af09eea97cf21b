//! See [`crate::adamw`]: one pass over the memory of weight and moments.

use super::{Values, rows};
use crate::adamw::AdamW;
use crate::cpu::vector::widest;
use burn::tensor::Tensor;

impl AdamW {
    /// All tensors must [`fit`](Values::fit).
    pub(crate) fn on_cpu(self, state: [Tensor<1>; 3], gradient: Tensor<1>) -> [Tensor<1>; 3] {
        let values = |tensor| Values::take(tensor).expect("the caller asked whether they fit");
        let (mut state, gradient) = (state.map(values), values(gradient));
        rows::update_three(state.each_mut().map(Values::make_mut), &gradient, |state, gradient| {
            self.pass(state, gradient);
        });
        state.map(Values::into_tensor)
    }

    /// Steps some values in place, on this thread: weight, first and second moment, and their gradient.
    pub fn pass(self, [weight, first, second]: [&mut [f32]; 3], gradient: &[f32]) {
        widest!(self.values(weight, first, second, gradient));
    }

    #[inline(always)]
    fn values(self, weight: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32]) {
        let [beta1, beta2, scale, keep, rate] =
            [self.beta1, self.beta2, self.scale, self.keep, self.rate].map(|x| x as f32);
        let [rest1, rest2, inverse, epsilon] =
            [1.0 - self.beta1, 1.0 - self.beta2, 1.0 / self.correction, self.epsilon].map(|x| x as f32);
        let state = weight.iter_mut().zip(first).zip(second);
        for (((weight, first), second), gradient) in state.zip(gradient) {
            let gradient = gradient * scale;
            *first = *first * beta1 + gradient * rest1;
            *second = *second * beta2 + gradient * gradient * rest2;
            *weight = *weight * keep - *first / (second.sqrt() * inverse + epsilon) * rate;
        }
    }
}
