//! See [`crate::linear`]: three products, of which each reads its operands as they are stored.

use super::{Matrix, Values, product, tensor};
use crate::Form;
use crate::linear::Linear;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

impl Form<Flex, 2> for Linear {
    fn kept(&self, [x, weight]: [bool; 2]) -> [bool; 2] {
        [weight, x]
    }

    fn value(&self, [x, weight]: [&FlexTensor; 2]) -> FlexTensor {
        let (x, weight) = (Values::from(x.clone()), Values::from(weight.clone()));
        let weight = Matrix::new(&weight, self.outer, self.inner);
        tensor(product(Matrix::new(&x, self.tokens, self.inner), weight.transposed()), [self.tokens, self.outer])
    }

    fn gradients(
        &self,
        [x, weight]: [Option<FlexTensor>; 2],
        d_y: FlexTensor,
        _: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let ([x, weight], d_y) = ([x, weight].map(|input| input.map(Values::from)), Values::from(d_y));
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
