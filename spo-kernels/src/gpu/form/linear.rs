//! See [`crate::linear`]: the weight's gradient is made in the weight's own layout.

use crate::Form;
use crate::gpu::matmul::product;
use crate::linear::Linear;
use burn::backend::ops::FloatTensorOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

fn transposed(x: CubeTensor) -> CubeTensor {
    CubeBackend::float_swap_dims(x, 0, 1)
}

impl Form<CubeBackend, 2> for Linear {
    fn kept(&self, [x, weight]: [bool; 2]) -> [bool; 2] {
        [weight, x]
    }

    fn value(&self, [x, weight]: [&CubeTensor; 2]) -> CubeTensor {
        product(x, &transposed(weight.clone()), x.dtype)
    }

    fn gradients(
        &self,
        [x, weight]: [Option<CubeTensor>; 2],
        d_y: CubeTensor,
        _: [bool; 2],
    ) -> [Option<CubeTensor>; 2] {
        let d_x = weight.map(|weight| product(&d_y, &weight, d_y.dtype));
        let d_weight = x.map(|x| product(&transposed(d_y), &x, x.dtype));
        [d_x, d_weight]
    }
}
