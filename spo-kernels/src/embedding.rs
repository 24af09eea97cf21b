//! The gradient of an embedding table: row `ids[i]` of the sum gets row `i` of the gradients, in the sum's type.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

/// Adds the gradient of each token to its id's row, token after token.
///
/// # Shapes
/// - `sum`, and the result: `[vocab · hidden]`
/// - `ids`: `[tokens]`, each in `0..vocab`
/// - `rows`: `[tokens, hidden]`
pub fn add_rows(sum: Tensor<1>, ids: &[i32], rows: Tensor<2>) -> Tensor<1> {
    #[cfg(feature = "gpu")]
    let sum = match crate::gpu::form::add_rows(sum, ids, &rows) {
        Ok(sum) => return sum,
        Err(sum) => sum,
    };
    reference(sum, ids, rows)
}

/// The same in burn's operations.
pub fn reference(sum: Tensor<1>, ids: &[i32], rows: Tensor<2>) -> Tensor<1> {
    let ([elements], [_, width], dtype) = (sum.dims(), rows.dims(), sum.dtype());
    let ids = Tensor::<1, Int>::from_data(TensorData::new(ids.to_vec(), [ids.len()]), &sum.device());
    let table = sum.reshape([elements / width, width]);
    table.select_assign(0, ids, rows.cast(dtype), IndexingUpdateOp::Add).reshape([elements])
}
