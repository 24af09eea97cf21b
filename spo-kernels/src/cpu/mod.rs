//! The forms of the operations on the CPU, in f32, and what they are made of: matrix products, rows of numbers, and
//! tensors as slices.
//!
//! burn's CPU backend computes most operations on one thread and in several passes. The forms take one pass, on all
//! threads; burn's own operations are their reference, and what runs on every other device and type.

mod adamw;
pub(crate) mod attention;
mod bias;
mod blocks;
pub mod decode;
mod glu;
pub(crate) mod head;
mod linear;
pub mod matmul;
mod matrix;
pub(crate) mod product;
mod pull;
mod rms_norm;
mod rope;
pub mod rows;
pub mod values;
pub mod vector;

pub use matmul::{add_product, product, product_into};
pub use matrix::Matrix;
pub use values::Values;

use crate::Home;
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{DType, Device, Shape, Tensor};

/// Whether tensors of this device live in host memory, under the CPU backend.
pub fn on_cpu(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

impl Home for Flex {
    fn takes(dtype: DType, device: &Device) -> bool {
        dtype == DType::F32 && on_cpu(device)
    }

    fn plain<const D: usize>(x: Tensor<D>) -> Option<FlexTensor> {
        x.try_into_primitive::<Self>().ok()
    }

    fn taped<const D: usize>(x: Tensor<D>) -> Option<FloatTensor<Autodiff<Self>>> {
        x.try_into_primitive::<Autodiff<Self>>().ok()
    }

    fn from_plain<const D: usize>(x: FlexTensor) -> Tensor<D> {
        Tensor::from_primitive::<Self>(x)
    }

    fn from_taped<const D: usize>(x: FloatTensor<Autodiff<Self>>) -> Tensor<D> {
        Tensor::from_primitive::<Autodiff<Self>>(x)
    }
}

/// Does work of many products on one of the pool's threads, which then starts them all: from another thread each product
/// waits until one of the pool's wakes, which takes as long as a small product. On a card it stays on this thread, whose
/// launches are one stream.
pub fn on_a_worker<R: Send>(device: &Device, work: impl FnOnce() -> R + Send) -> R {
    if on_cpu(device) { rayon::scope(|_| work()) } else { work() }
}

/// A tensor of the CPU backend that takes over `values`.
fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    Values::new(values, shape).into_flex()
}

/// Rows and width of a tensor whose last dimension is `width`.
fn rows_of(shape: &Shape) -> (usize, usize) {
    let width = shape.as_slice().last().copied().unwrap_or(1);
    (shape.num_elements() / width.max(1), width)
}
