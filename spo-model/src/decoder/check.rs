//! What tests of adapters have in common.

use crate::device;
use burn::tensor::{DType, Tensor, TensorData};

/// f64 values that look random, of this shape.
pub fn numbers([rows, columns]: [usize; 2], seed: f64) -> Tensor<2> {
    let values = (0..rows * columns).map(|i| ((i as f64 + 1.0) * 12.9898 + seed).sin() * 0.7).collect::<Vec<f64>>();
    Tensor::from_data(TensorData::new(values, [rows, columns]), (&device::cpu(), DType::F64))
}

pub fn flat(x: Tensor<2>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

/// The gradients of a value of these f64 inputs are the central differences, to 1e-7.
pub fn assert_gradients<const N: usize>(at: &[Tensor<2>; N], value: impl Fn([Tensor<2>; N]) -> Tensor<1>) {
    let lifted = at.clone().map(|x| x.autodiff().require_grad());
    let mut tape = value(lifted.clone()).backward();
    for (index, input) in lifted.into_iter().enumerate() {
        let gradient = flat(input.grad_remove(&mut tape).expect("the value depends on every input"));
        let shape = at[index].dims();
        for (element, found) in gradient.into_iter().enumerate() {
            let moved = |by: f64| {
                let mut values = flat(at[index].clone());
                values[element] += by;
                let mut inputs = at.clone();
                inputs[index] = Tensor::from_data(TensorData::new(values, shape), (&device::cpu(), DType::F64));
                value(inputs).into_data().iter::<f64>().next().expect("one value")
            };
            let expected = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            let allowed = 1e-7 * expected.abs().max(1.0);
            assert!((found - expected).abs() <= allowed, "{index} {element}: {found} {expected}");
        }
    }
}
