//! See [`crate::linear`]: burn's products, and the weight's gradient in the weight's own layout.

use crate::Form;
use crate::linear::Linear;
use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

fn product<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(a, b)
}

fn transposed<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_swap_dims(x, 0, 1)
}

impl Form<CubeBackend, 2> for Linear {
    fn kept(&self, [x, weight]: [bool; 2]) -> [bool; 2] {
        [weight, x]
    }

    fn value(&self, [x, weight]: [&CubeTensor; 2]) -> CubeTensor {
        product::<CubeBackend>(x.clone(), transposed::<CubeBackend>(weight.clone()))
    }

    fn gradients(
        &self,
        [x, weight]: [Option<CubeTensor>; 2],
        d_y: CubeTensor,
        _: [bool; 2],
    ) -> [Option<CubeTensor>; 2] {
        let d_x = weight.map(|weight| product::<CubeBackend>(d_y.clone(), weight));
        let d_weight = x.map(|x| product::<CubeBackend>(transposed::<CubeBackend>(d_y), x));
        [d_x, d_weight]
    }
}
