//! See [`crate::accumulate`].

use super::{buffer, own, take, typed};
use crate::Home;
use crate::gpu::sums;
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;

/// The sum, in place where nobody else holds it; itself where it is not f32 on a card.
#[allow(clippy::result_large_err, reason = "the sum comes back to be added to otherwise")]
pub(crate) fn accumulate(sum: Tensor<1>, gradient: &Tensor<1>) -> Result<Tensor<1>, Tensor<1>> {
    let Some(gradient) = take(gradient).filter(|_| sum.dtype() == DType::F32) else { return Err(sum) };
    let sum = own(CubeBackend::plain(sum).expect("on the gradient's device"));
    typed!(gradient.dtype, E => sums::accumulate::<E>(&sum.client, buffer(&sum), buffer(&gradient)));
    Ok(Tensor::from_primitive::<CubeBackend>(sum))
}
