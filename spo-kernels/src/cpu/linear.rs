//! `x Wᵀ`

use super::{Kernel, Operand, apply, tensor};
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use spo_core::cpu::{Matrix, Values, product};

/// `[tokens, in]` and `[out, in]` → `[tokens, out]`
pub(crate) fn linear(x: &Tensor<2>, weight: &Tensor<2>) -> Option<Tensor<2>> {
    let ([tokens, inner], [outer, _]) = (x.dims(), weight.dims());
    Some(apply(Linear { tokens, inner, outer }, [Operand::of(x)?, Operand::of(weight)?]))
}

#[derive(Debug, Clone, Copy)]
struct Linear {
    tokens: usize,
    inner: usize,
    outer: usize,
}

impl Kernel<2> for Linear {
    fn kept(&self, [x, weight]: [bool; 2]) -> [bool; 2] {
        [weight, x]
    }

    fn value(&self, [x, weight]: [&FlexTensor; 2]) -> FlexTensor {
        let (x, weight) = (Values::from(x.clone()), Values::from(weight.clone()));
        let weight = Matrix::new(&weight, self.outer, self.inner);
        tensor(product(Matrix::new(&x, self.tokens, self.inner), weight.transposed()), [self.tokens, self.outer])
    }

    fn gradients(&self, [x, weight]: [Option<Values>; 2], d_y: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let d_y = Values::from(d_y);
        let d_y = Matrix::new(&d_y, self.tokens, self.outer);
        let d_x = weight.map(|weight| {
            tensor(product(d_y, Matrix::new(&weight, self.outer, self.inner)), [self.tokens, self.inner])
        });
        let d_weight = x.map(|x| {
            tensor(product(d_y.transposed(), Matrix::new(&x, self.tokens, self.inner)), [self.outer, self.inner])
        });
        [d_x, d_weight]
    }
}
