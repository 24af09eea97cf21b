//! See [`crate::rope`].

use super::{buffer, own, typed};
use crate::Form;
use crate::gpu::Buffer;
use crate::gpu::rope::{Table, Turn, turn};
use crate::rope::Rotate;
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Cosines and sines on a device, of the tokens in their order.
#[derive(Debug, Clone)]
pub(crate) struct DeviceAngles {
    table: Table,
    /// Token `t` has row `t` of the table.
    rows: Buffer,
}

impl DeviceAngles {
    /// Of tables `[tokens, 1, turned]`; `None` for those of another backend.
    pub fn new(cos: &Tensor<3>, sin: &Tensor<3>) -> Option<Self> {
        let [tokens, _, turned] = cos.dims();
        let half = |table: &Tensor<3>| match table.dtype() {
            DType::F32 => table.clone().narrow(2, 0, turned / 2).try_into_primitive::<CubeBackend>().ok(),
            _ => None,
        };
        let [cos, sin] = [into_contiguous(half(cos)?), into_contiguous(half(sin)?)];
        let rows: Vec<u32> = (0..tokens as u32).collect();
        let rows = Buffer::from_slice(&cos.client, &rows);
        Some(Self { table: Table { cos: buffer(&cos), sin: buffer(&sin), turned }, rows })
    }
}

impl Rotate<DeviceAngles> {
    fn turn(&self, to: Turn, x: CubeTensor) -> CubeTensor {
        let (x, DeviceAngles { table, rows }) = (own(x), self.angles.clone());
        typed!(x.dtype, E => turn::<E>(&x.client, to, table, rows, self.dim, buffer(&x)));
        x
    }
}

impl Form<CubeBackend, 1> for Rotate<DeviceAngles> {
    fn kept(&self, _: [bool; 1]) -> [bool; 1] {
        [false]
    }

    fn value(&self, [x]: [&CubeTensor; 1]) -> CubeTensor {
        self.turn(Turn::Forth, x.clone())
    }

    fn gradients(&self, _: [Option<CubeTensor>; 1], d_y: CubeTensor, _: [bool; 1]) -> [Option<CubeTensor>; 1] {
        [Some(self.turn(Turn::Back, d_y))]
    }
}
