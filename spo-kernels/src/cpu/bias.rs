//! See [`crate::bias`].

use super::{Values, rows, rows_of, tensor};
use crate::Form;
use crate::bias::AddBias;
use crate::cpu::vector::widest;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;

impl Form<Flex, 2> for AddBias {
    fn kept(&self, _: [bool; 2]) -> [bool; 2] {
        [false; 2]
    }

    fn value(&self, [y, bias]: [&FlexTensor; 2]) -> FlexTensor {
        let shape = y.layout().shape().clone();
        let (count, width) = rows_of(&shape);
        let (y, bias) = (Values::from(y.clone()), Values::from(bias.clone()));
        let sums = rows::build(count, width, |first, out| {
            widest!({
                for (out, y) in out.chunks_exact_mut(width).zip(y[first * width..].chunks_exact(width)) {
                    out.iter_mut().zip(y).zip(&*bias).for_each(|((out, y), bias)| *out = y + bias);
                }
            });
        });
        tensor(sums, shape)
    }

    fn gradients(&self, _: [Option<FlexTensor>; 2], d_y: FlexTensor, [y, bias]: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let d_bias = bias.then(|| {
            let (count, width) = rows_of(d_y.layout().shape());
            let d_y = Values::from(d_y.clone());
            let sums = rows::sum_rows(count, width, |rows, sums| {
                for row in d_y[rows.start * width..rows.end * width].chunks_exact(width) {
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
            });
            tensor(sums, [width])
        });
        [y.then_some(d_y), d_bias]
    }
}
