//! Tensors in host memory as slices.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};
use std::ops::Deref;

/// The values of an f32 tensor of the CPU, row-major, shared with it.
#[derive(Debug, Clone)]
pub struct Values(FlexTensor);

impl Values {
    /// Whether a tensor has such values: f32, on the CPU, on no tape.
    pub fn fit<const D: usize>(x: &Tensor<D>) -> bool {
        x.dtype() == DType::F32 && !x.is_autodiff() && x.device() == Device::flex()
    }

    /// The values of a tensor, copied only if they are not contiguous; `None` where they do not [`fit`](Self::fit).
    pub fn of<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        Self::take(x.clone())
    }

    /// As [`of`](Self::of), of a tensor that nobody needs any more: its memory can be written again.
    pub fn take<const D: usize>(x: Tensor<D>) -> Option<Self> {
        Self::fit(&x).then(|| x.try_into_primitive::<Flex>().expect("on the CPU and on no tape").into())
    }

    /// Values of a new tensor.
    pub fn new(values: Vec<f32>, shape: impl Into<Shape>) -> Self {
        Self(FlexTensor::from_data(TensorData::new(values, shape)))
    }

    /// The values to change, in place if nobody else shares them.
    pub fn make_mut(&mut self) -> &mut [f32] {
        let (start, end) = self.0.layout().contiguous_offsets().expect("contiguous since `from`");
        &mut self.0.storage_mut()[start..end]
    }

    /// The tensor again, in the shape it had.
    pub fn into_tensor<const D: usize>(self) -> Tensor<D> {
        Tensor::from_primitive::<Flex>(self.0)
    }

    /// The backend's own tensor.
    pub fn into_flex(self) -> FlexTensor {
        self.0
    }
}

impl From<FlexTensor> for Values {
    fn from(tensor: FlexTensor) -> Self {
        Self(if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() })
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_slice().expect("contiguous f32 since `from`")
    }
}
