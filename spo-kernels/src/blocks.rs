//! `y = x Wᵀ` with a frozen weight that is kept in blocks of few bits: `d_x = d_y W`, and the weight has no gradient.
//!
//! A product decodes a tile of the weight at a time, forward and backward, and no dense copy of it is ever there. Its bits
//! are those of [`crate::linear`] with the decoded weight.

use crate::{operand, run};
use burn::backend::Flex;
use burn::tensor::{DType, Device, Tensor, TensorData};
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// A matrix `[rows, columns]` in a form that gives its numbers a few at a time.
pub trait Blocks: Debug + Send + Sync {
    /// `[rows, columns]`
    fn dims(&self) -> [usize; 2];

    /// Columns that are decoded together, a power of two: what is asked for starts at a multiple of it, and ends at one or
    /// at the end of the row.
    fn unit(&self) -> usize;

    /// The numbers of some columns of a row, in f32.
    fn decode(&self, row: usize, columns: Range<usize>, out: &mut [f32]);
}

/// The operation on `x`.
#[derive(Debug, Clone)]
pub struct BlockLinear {
    /// Rows of `x`.
    pub tokens: usize,
    /// `[out, in]`
    pub weight: Arc<dyn Blocks>,
}

/// `[tokens, in]` → `[tokens, out]` in the type of `x`, computed in f32; differentiable in `x`.
pub fn block_linear(x: Tensor<2>, weight: &Arc<dyn Blocks>) -> Tensor<2> {
    let (dtype, tokens) = (x.dtype(), x.dims()[0]);
    let form = BlockLinear { tokens, weight: weight.clone() };
    let x = if dtype == DType::F32 { x } else { x.cast(DType::F32) };
    let y = run::<Flex, 1, 2>(form, [operand(&x)]).unwrap_or_else(|| reference(x, weight.as_ref()));
    if dtype == DType::F32 { y } else { y.cast(dtype) }
}

/// The same in burn's operations, with the whole weight decoded.
pub fn reference(x: Tensor<2>, weight: &dyn Blocks) -> Tensor<2> {
    let weight = dense(weight, &x.device().inner());
    x.matmul(weight.transpose())
}

/// The whole weight in f32, `[out, in]`.
pub fn dense(weight: &dyn Blocks, device: &Device) -> Tensor<2> {
    let [rows, columns] = weight.dims();
    let mut values = vec![0.0; rows * columns];
    for (row, values) in values.chunks_exact_mut(columns.max(1)).enumerate() {
        weight.decode(row, 0..columns, values);
    }
    Tensor::from_data(TensorData::new(values, [rows, columns]), (device, DType::F32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{numbers, random, wide};
    use crate::linear::linear;

    /// Halves in blocks of four.
    #[derive(Debug)]
    struct Halves {
        values: Vec<i8>,
        columns: usize,
    }

    impl Blocks for Halves {
        fn dims(&self) -> [usize; 2] {
            [self.values.len() / self.columns, self.columns]
        }

        fn unit(&self) -> usize {
            4
        }

        fn decode(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
            assert!(columns.start.is_multiple_of(4) && columns.end.is_multiple_of(4) && columns.end <= self.columns);
            let values = &self.values[row * self.columns..][columns];
            out.iter_mut().zip(values).for_each(|(out, value)| *out = f32::from(*value) * 0.5);
        }
    }

    fn halves(out: usize, inputs: usize) -> Arc<dyn Blocks> {
        let values = numbers(out * inputs, 7).iter().map(|x| (x * 100.0) as i8).collect();
        Arc::new(Halves { values, columns: inputs })
    }

    #[test]
    fn products_have_the_bits_of_the_dense_weight() {
        for [tokens, inputs, out] in
            [[1, 4, 1], [7, 12, 5], [130, 64, 200], [33, 520, 300], [442, 512, 1376], [90, 1376, 600]]
        {
            let weight = halves(out, inputs);
            let dense = dense(weight.as_ref(), &Device::flex());
            let (x, d_y) = (random([tokens, inputs]), random([tokens, out]));
            let of = |form: &dyn Fn(Tensor<2>) -> Tensor<2>| {
                let x = x.clone().autodiff().require_grad();
                let y = form(x.clone());
                let mut tape = (y.clone() * d_y.clone().autodiff()).sum().backward();
                (wide(&y.inner()), wide(&x.grad_remove(&mut tape).expect("y depends on x")))
            };
            let found = of(&|x| block_linear(x, &weight));
            let expected = of(&|x| linear(x, dense.clone().autodiff()));
            assert!(found == expected, "{tokens} {inputs} {out}");
            assert!(wide(&block_linear(x.clone(), &weight)) == expected.0, "{tokens} {inputs} {out}, without a tape");
        }
    }

    #[test]
    fn narrow_types_are_computed_in_f32() {
        let (weight, x) = (halves(30, 16), random([5, 16]).cast(DType::BF16));
        let dense = dense(weight.as_ref(), &Device::flex());
        let expected = linear(x.clone().cast(DType::F32), dense).cast(DType::BF16);
        let found = block_linear(x, &weight);
        assert_eq!(found.dtype(), DType::BF16);
        assert_eq!(wide(&found), wide(&expected));
    }

    #[test]
    fn nothing_to_sum_is_zero() {
        let none: Arc<dyn Blocks> = Arc::new(Halves { values: vec![], columns: 4 });
        assert_eq!(block_linear(random([3, 4]), &none).dims(), [3, 0]);
        assert_eq!(block_linear(Tensor::zeros([0, 4], &Device::flex()), &halves(6, 4)).dims(), [0, 6]);
    }
}
