//! The end of a tape from which it is walked back with given derivatives.

use super::{Kernel, Operand, apply, tensor};
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use spo_core::cpu::Values;

/// A number whose derivative with respect to each output is the gradient beside it: `backward` of it walks back with
/// these, and nothing is multiplied or summed. `None` where the tensors are not f32 tensors of the CPU.
pub(crate) fn pull<const N: usize, const D: usize>(outputs: [(&Tensor<D>, &Tensor<D>); N]) -> Option<Tensor<1>> {
    let operands = outputs.map(|(output, _)| Operand::of(output));
    let gradients = outputs.map(|(_, gradient)| Values::of(gradient).map(Values::into_flex));
    if operands.iter().any(Option::is_none) || gradients.iter().any(Option::is_none) {
        return None;
    }
    let whole = "just checked";
    Some(apply(Pull(gradients.map(|gradient| gradient.expect(whole))), operands.map(|operand| operand.expect(whole))))
}

#[derive(Debug, Clone)]
struct Pull<const N: usize>([FlexTensor; N]);

impl<const N: usize> Kernel<N> for Pull<N> {
    fn kept(&self, _: [bool; N]) -> [bool; N] {
        [false; N]
    }

    fn value(&self, _: [&FlexTensor; N]) -> FlexTensor {
        tensor(vec![0.0], [1])
    }

    fn gradients(&self, _: [Option<Values>; N], _: FlexTensor, _: [bool; N]) -> [Option<FlexTensor>; N] {
        self.0.clone().map(Some)
    }
}
