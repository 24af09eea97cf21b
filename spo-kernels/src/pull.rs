//! Where a tape begins to be walked back: a number whose `backward` walks back from outputs with the given derivatives,
//! which are those of `Σ output · d_output`.

use crate::{Form, Home, Operand, operand, run};
use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;

/// The operation on the outputs: it knows their derivatives, and its own value is of no interest.
#[derive(Debug, Clone)]
pub struct Pull<B: Home, const N: usize>(pub [FloatTensor<B>; N]);

impl<B: Home, const N: usize> Pull<B, N> {
    /// `None` where one of the derivatives is not taken by the backend's forms, or is on a tape.
    fn new<const D: usize>(outputs: [(&Tensor<D>, &Tensor<D>); N]) -> Option<Self> {
        let gradients = outputs.map(|(_, gradient)| match operand::<B, D>(gradient) {
            Some(Operand::Plain(gradient)) => Some(gradient),
            _ => None,
        });
        gradients.iter().all(Option::is_some).then(|| Self(gradients.map(|gradient| gradient.expect("just checked"))))
    }
}

/// A number, `[1]`, whose derivative with respect to each output is the one beside it.
pub fn pull<const N: usize, const D: usize>(outputs: [(&Tensor<D>, &Tensor<D>); N]) -> Tensor<1> {
    let pulled = on::<Flex, N, D>(outputs);
    #[cfg(feature = "gpu")]
    let pulled = pulled.or_else(|| on::<burn_cubecl::CubeBackend, N, D>(outputs));
    pulled.unwrap_or_else(|| reference(outputs))
}

/// By a backend's form.
fn on<B: Home, const N: usize, const D: usize>(outputs: [(&Tensor<D>, &Tensor<D>); N]) -> Option<Tensor<1>>
where
    Pull<B, N>: Form<B, N>,
{
    run::<B, N, 1>(Pull::<B, N>::new(outputs)?, outputs.map(|(output, _)| operand(output)))
}

/// The same in burn's operations; the value is the sum.
pub fn reference<const N: usize, const D: usize>(outputs: [(&Tensor<D>, &Tensor<D>); N]) -> Tensor<1> {
    let terms = outputs.map(|(x, d_x)| (x.clone() * d_x.clone().autodiff()).sum());
    terms.into_iter().reduce(|sum, term| sum + term).expect("at least one output")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{random, wide};

    #[test]
    fn gradients_are_those_of_the_weighted_sum() {
        let inputs = [random([5, 3]), random([4, 2])];
        let d_outputs = [random([5, 3]), random([4, 2])];
        let of = |f: fn([(&Tensor<2>, &Tensor<2>); 2]) -> Tensor<1>| {
            let leaves = inputs.each_ref().map(|x| x.clone().autodiff().require_grad());
            let outputs = leaves.each_ref().map(|x| x.clone() * 3.0);
            let tape = f([(&outputs[0], &d_outputs[0]), (&outputs[1], &d_outputs[1])]).backward();
            leaves.map(|leaf| wide(&leaf.grad(&tape).expect("every input has a gradient")))
        };
        assert_eq!(of(pull), of(reference));
    }
}
