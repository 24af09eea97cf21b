//! Between plain numbers and burn's tensors.

use burn::tensor::{DType, Device, Tensor};

use crate::CoreError;

/// The precision of the arithmetic: f64 where the device has it, f32 otherwise.
pub(crate) fn precision(device: &Device) -> DType {
    if device.supports_dtype(DType::F64) { DType::F64 } else { DType::F32 }
}

/// `device` with gradients switched on.
pub(crate) fn with_tape(device: &Device) -> Device {
    if device.is_autodiff() { device.clone() } else { device.clone().autodiff() }
}

/// A tensor as plain numbers.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>, what: &'static str) -> Result<Vec<f64>, CoreError> {
    tensor.try_into_vec_as::<f64>().map_err(|error| CoreError::Device { what, reason: error.to_string() })
}

/// Fails at the first number that is not finite.
pub(crate) fn finite(objective: &str, quantity: &'static str, values: &[f64]) -> Result<(), CoreError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(row) => Err(CoreError::NotFinite { objective: objective.into(), row, quantity, found: values[row] }),
        None => Ok(()),
    }
}
