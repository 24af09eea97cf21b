//! See [`crate::squares`]: sums of parts, which the host adds up in f64.

use super::{beside, buffer, take};
use crate::gpu::sums::{parts, squares};
use crate::host::read;
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

/// `None` for tensors that are not f32 on a card.
pub(crate) fn sum_of_squares(tensors: &[Tensor<1>]) -> Option<f64> {
    let taken = tensors.iter().map(|x| take(x).filter(|x| x.dtype == DType::F32));
    let tensors = taken.collect::<Option<Vec<CubeTensor>>>()?;
    let count = |x: &CubeTensor| parts(x.meta.num_elements());
    let sums = beside(tensors.first()?, [tensors.iter().map(count).sum::<usize>()], DType::F32);
    let mut first = 0;
    for x in &tensors {
        squares(&x.client, buffer(x), buffer(&sums), first);
        first += count(x);
    }
    let sums = read(Tensor::<1>::from_primitive::<CubeBackend>(sums));
    Some(sums.iter::<f32>().map(f64::from).sum())
}
