//! The kernels as forms of this crate's operations, for burn's backend of graphics cards.

mod accumulate;
mod adamw;
pub(crate) mod attention;
mod choose;
mod dequantise;
mod embedding;
mod glu;
mod head;
mod linear;
pub mod matrix_units;
mod product;
mod pull;
mod rms_norm;
mod rope;
mod squares;

pub(crate) use accumulate::accumulate;
pub(crate) use choose::choose;
pub use dequantise::dequantised;
pub(crate) use embedding::add_rows;
pub(crate) use head::{gradients, logps};
pub(crate) use product::add_transposed;
pub(crate) use rope::DeviceAngles;
pub(crate) use squares::sum_of_squares;

use super::Buffer;
use crate::Home;
use crate::cpu::on_cpu;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, TensorMetadata};
use burn::tensor::{DType, Device, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// Runs an expression with `$E` the type of a dtype that [`Home::takes`] lets in.
macro_rules! typed {
    ($dtype:expr, $E:ident => $run:expr) => {
        match $dtype {
            burn::tensor::DType::F32 => {
                type $E = f32;
                $run
            }
            burn::tensor::DType::F16 => {
                type $E = half::f16;
                $run
            }
            burn::tensor::DType::BF16 => {
                type $E = half::bf16;
                $run
            }
            other => unreachable!("no form takes {other:?}"),
        }
    };
}
use typed;

impl Home for CubeBackend {
    fn takes(dtype: DType, device: &Device) -> bool {
        matches!(dtype, DType::F32 | DType::F16 | DType::BF16) && !on_cpu(device)
    }

    fn plain<const D: usize>(x: Tensor<D>) -> Option<CubeTensor> {
        x.try_into_primitive::<Self>().ok()
    }

    fn taped<const D: usize>(x: Tensor<D>) -> Option<FloatTensor<Autodiff<Self>>> {
        x.try_into_primitive::<Autodiff<Self>>().ok()
    }

    fn from_plain<const D: usize>(x: CubeTensor) -> Tensor<D> {
        Tensor::from_primitive::<Self>(x)
    }

    fn from_taped<const D: usize>(x: FloatTensor<Autodiff<Self>>) -> Tensor<D> {
        Tensor::from_primitive::<Autodiff<Self>>(x)
    }
}

/// A tensor that forms take and that is on no tape, without gaps.
fn take<const D: usize>(x: &Tensor<D>) -> Option<CubeTensor> {
    let taken = CubeBackend::takes(x.dtype(), &x.device()).then(|| CubeBackend::plain(x.clone()));
    taken.flatten().map(into_contiguous)
}

/// A contiguous tensor as a kernel takes it.
fn buffer(x: &CubeTensor) -> Buffer {
    assert!(x.is_contiguous(), "a form passes contiguous tensors on");
    Buffer::new(x.handle.clone(), x.meta.num_elements())
}

/// A tensor beside another, on its device and stream, with anything in it.
fn beside(x: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape.into(), dtype)
}

/// As [`beside`], of the other's shape and type.
fn like(x: &CubeTensor) -> CubeTensor {
    beside(x, x.shape(), x.dtype)
}

/// A contiguous tensor that nobody else holds, to be written in place. A copy may have gaps between its rows, as CUDA
/// likes them.
fn own(x: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    if x.can_mut() { x } else { into_contiguous(x.copy()) }
}
