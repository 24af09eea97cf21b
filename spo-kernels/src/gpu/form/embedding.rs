//! See [`crate::embedding`].

use super::{buffer, own, take, typed};
use crate::Home;
use crate::gpu::embedding::{Sorted, accumulate};
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;

/// The sum, in place where nobody else holds it; itself where it is not f32 on a card.
#[allow(clippy::result_large_err, reason = "the sum comes back to be added to otherwise")]
pub(crate) fn add_rows(sum: Tensor<1>, ids: &[i32], rows: &Tensor<2>) -> Result<Tensor<1>, Tensor<1>> {
    let Some(taken) = take(rows).filter(|_| sum.dtype() == DType::F32) else { return Err(sum) };
    let (sum, [_, width]) = (own(CubeBackend::plain(sum).expect("on the gradients' device")), rows.dims());
    let ids: Vec<u32> = ids.iter().map(|id| id.cast_unsigned()).collect();
    typed!(taken.dtype, E => {
        accumulate::<E>(&sum.client, width, &Sorted::new(&ids), buffer(&taken), buffer(&sum));
    });
    Ok(Tensor::from_primitive::<CubeBackend>(sum))
}
