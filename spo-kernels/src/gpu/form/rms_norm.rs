//! See [`crate::rms_norm`].

use super::{beside, buffer, like, typed};
use crate::Form;
use crate::gpu::norm::{self, InputGradient, Kind, Norm, Weights};
use crate::rms_norm::RmsNorm;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::{cast, into_contiguous};
use burn_cubecl::tensor::CubeTensor;

impl RmsNorm {
    fn norm(&self) -> Norm {
        let kind = if self.offset == 0.0 { Kind::Rms } else { Kind::RmsOffset };
        Norm { kind, epsilon: self.epsilon, offset: self.offset }
    }
}

/// Room for the statistics of rows of `width` values.
fn statistics(x: &CubeTensor, width: usize) -> CubeTensor {
    beside(x, [x.meta.num_elements() / width, 2], DType::F32)
}

impl Form<CubeBackend, 2> for RmsNorm {
    fn kept(&self, _: [bool; 2]) -> [bool; 2] {
        [true; 2]
    }

    fn value(&self, inputs: [&CubeTensor; 2]) -> CubeTensor {
        let [x, weight] = inputs.map(|x| into_contiguous(x.clone()));
        let (width, y) = (weight.meta.num_elements(), like(&x));
        let weights = Weights { weight: buffer(&weight), bias: None };
        let [from, to, of] = [&x, &y, &statistics(&x, width)].map(buffer);
        typed!(x.dtype, E => norm::forward::<E>(&x.client, self.norm(), width, from, weights, to, of));
        y
    }

    fn gradients(&self, kept: [Option<CubeTensor>; 2], d_y: CubeTensor, wanted: [bool; 2]) -> [Option<CubeTensor>; 2] {
        let [x, weight] = kept.map(|x| into_contiguous(x.expect("`kept` asks for both")));
        let (d_y, width, dtype) = (into_contiguous(d_y), weight.meta.num_elements(), x.dtype);
        let (client, of) = (&x.client, statistics(&x, width));
        typed!(dtype, E => norm::statistics::<E>(client, self.norm(), width, buffer(&x), buffer(&of)));
        let inputs = || [&x, &d_y, &of].map(buffer);
        let d_x = wanted[0].then(|| {
            let (d_x, [x, d_y, of]) = (like(&x), inputs());
            let (weight, to) = (buffer(&weight), InputGradient::Store(buffer(&d_x)));
            typed!(dtype, E => norm::backward::<E>(client, self.norm(), width, x, weight, d_y, of, to));
            d_x
        });
        let d_weight = wanted[1].then(|| {
            let (sum, [x, d_y, of]) = (beside(&weight, [width], DType::F32), inputs());
            typed!(dtype, E => norm::backward_of_weights::<E>(client, width, x, d_y, of, buffer(&sum), None));
            cast(sum, dtype)
        });
        [d_x, d_weight]
    }
}
