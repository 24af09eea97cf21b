//! See [`crate::product`]: the product in f32, whatever its operands are stored in, and then the sum in place.

use super::{buffer, own};
use crate::Home;
use crate::gpu::{matmul, sums};
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;

/// `sum + aᵀ b`; the sum itself where it is not f32 on a card.
#[allow(clippy::result_large_err, reason = "the sum comes back to be added to otherwise")]
pub(crate) fn add_transposed(sum: Tensor<2>, a: &Tensor<2>, b: &Tensor<2>) -> Result<Tensor<2>, Tensor<2>> {
    let fits = |x: &Tensor<2>| !x.is_autodiff() && CubeBackend::takes(x.dtype(), &x.device());
    if sum.dtype() != DType::F32 || ![&sum, a, b].into_iter().all(fits) {
        return Err(sum);
    }
    let on_card = "just asked";
    let transposed = CubeBackend::plain(a.clone().transpose()).expect(on_card);
    let b = CubeBackend::plain(b.clone()).expect(on_card);
    let product = into_contiguous(matmul::product(&transposed, &b, DType::F32));
    let sum = own(CubeBackend::plain(sum).expect(on_card));
    sums::accumulate::<f32>(&sum.client, buffer(&sum), buffer(&product));
    Ok(Tensor::from_primitive::<CubeBackend>(sum))
}
