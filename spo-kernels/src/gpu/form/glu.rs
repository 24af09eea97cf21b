//! See [`crate::glu`].

use super::{buffer, like, own, typed};
use crate::Form;
use crate::glu::Glu;
use crate::gpu::glu::{backward, forward};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

impl Form<CubeBackend, 2> for Glu {
    fn kept(&self, _: [bool; 2]) -> [bool; 2] {
        [true; 2]
    }

    fn value(&self, inputs: [&CubeTensor; 2]) -> CubeTensor {
        let [gate, up] = inputs.map(|x| into_contiguous(x.clone()));
        let y = like(&gate);
        typed!(gate.dtype, E => forward::<E>(&gate.client, self.0, buffer(&gate), buffer(&up), buffer(&y)));
        y
    }

    fn gradients(&self, kept: [Option<CubeTensor>; 2], d_y: CubeTensor, _: [bool; 2]) -> [Option<CubeTensor>; 2] {
        let [gate, up] = kept.map(|x| own(x.expect("`kept` asks for both")));
        let d_y = into_contiguous(d_y);
        typed!(gate.dtype, E => backward::<E>(&gate.client, self.0, buffer(&gate), buffer(&up), buffer(&d_y)));
        [Some(gate), Some(up)]
    }
}
