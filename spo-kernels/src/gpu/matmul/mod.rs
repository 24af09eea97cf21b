//! Matrix products on cards: by cubek's kernels, or by cuBLASLt.

#[cfg(feature = "cublaslt")]
mod cublaslt;
mod strategies;

use crate::matmul::MatmulStrategy;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::ops::numeric::{empty_device_dtype, zeros};
use burn_cubecl::tensor::CubeTensor;

/// `[rows, inner]` and `[inner, columns]` of one type → `[rows, columns]` in `dtype`, by the chosen strategy; what it cannot
/// multiply by [`MatmulStrategy::Auto`].
pub fn product(a: &CubeTensor, b: &CubeTensor, dtype: DType) -> CubeTensor {
    let chosen = MatmulStrategy::chosen();
    if chosen != MatmulStrategy::Auto
        && let Ok(product) = multiply(chosen, a, b, dtype)
    {
        return product;
    }
    multiply(MatmulStrategy::Auto, a, b, dtype).expect("cubek multiplies everything by one of its kernels")
}

/// As [`product`] by one strategy alone; [`MatmulStrategy::Auto`] is cubek's choice here.
///
/// # Errors
/// Why it cannot.
fn multiply(strategy: MatmulStrategy, a: &CubeTensor, b: &CubeTensor, dtype: DType) -> Result<CubeTensor, String> {
    let shape = [a.meta.shape()[0], b.meta.shape()[1]];
    if shape.contains(&0) || a.meta.shape()[1] == 0 {
        return Ok(zeros(a.device.clone(), shape.into(), dtype));
    }
    let out = empty_device_dtype(a.client.clone(), a.device.clone(), shape.into(), dtype);
    #[cfg(feature = "cublaslt")]
    if strategy == MatmulStrategy::CublasLt {
        cublaslt::multiply(a, b, &out)?;
        return Ok(out);
    }
    strategies::launch(strategy, a, b, &out)?;
    Ok(out)
}

/// The product by one strategy; `None` where no card has the tensors.
///
/// # Errors
/// Why the strategy cannot multiply these.
pub fn multiplied(strategy: MatmulStrategy, a: Tensor<2>, b: Tensor<2>) -> Option<Result<Tensor<2>, String>> {
    let dtype = a.dtype();
    let [a, b] = [a, b].map(|x| x.try_into_primitive::<CubeBackend>().ok());
    Some(multiply(strategy, &a?, &b?, dtype).map(Tensor::from_primitive::<CubeBackend>))
}

/// Chooses how this process multiplies, once a product of each kind that training has is found right on the device.
///
/// # Errors
/// Why products cannot be had so: what the strategy, the device or the driver lacks, or how far a product was off.
pub fn choose(strategy: MatmulStrategy, device: &Device, dtype: DType) -> Result<MatmulStrategy, String> {
    let chosen = match strategy {
        MatmulStrategy::Auto
            if cfg!(feature = "cublaslt") && check(MatmulStrategy::CublasLt, device, dtype).is_ok() =>
        {
            MatmulStrategy::CublasLt
        }
        MatmulStrategy::Auto => strategy,
        strategy => check(strategy, device, dtype).map(|()| strategy)?,
    };
    chosen.choose();
    Ok(chosen)
}

/// Rows, inner and columns of the products that are tried: multiples of every tile.
const TRIED: [usize; 3] = [128, 256, 256];

/// Multiplies small whole numbers, whose sums are exact but for the last rounding, with each matrix as it is and transposed.
fn check(strategy: MatmulStrategy, device: &Device, dtype: DType) -> Result<(), String> {
    let [rows, inner, columns] = TRIED;
    let number = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 16) % 5;
    let numbers = |from: usize, count: usize| (from..from + count).map(|i| number(i) as f32 - 2.0).collect::<Vec<_>>();
    let (a, b) = (numbers(0, rows * inner), numbers(rows * inner, inner * columns));
    let expected: Vec<f32> = (0..rows * columns)
        .map(|i| (0..inner).map(|k| a[i / columns * inner + k] * b[k * columns + i % columns]).sum())
        .collect();
    for [a_turned, b_turned] in [[false, true], [false, false], [true, false]] {
        let a = stored(&a, [rows, inner], a_turned, device).cast(dtype);
        let b = stored(&b, [inner, columns], b_turned, device).cast(dtype);
        let turn = |x: Tensor<2>, turned: bool| if turned { x.transpose() } else { x };
        let product =
            multiplied(strategy, turn(a, a_turned), turn(b, b_turned)).ok_or("it is for graphics cards")??;
        let found = product.cast(DType::F32).try_into_data().map_err(|error| error.to_string())?;
        let off = found.iter::<f32>().zip(&expected).map(|(found, expected)| (found - expected).abs());
        let off = off.fold(0.0, |most: f32, off| if off.is_nan() { f32::INFINITY } else { most.max(off) });
        if off > 1.0 {
            return Err(format!("a product that it was tried with is off by {off}"));
        }
    }
    Ok(())
}

/// A matrix `[rows, columns]`, or the other way round as `[columns, rows]`.
fn stored(values: &[f32], [rows, columns]: [usize; 2], turned: bool, device: &Device) -> Tensor<2> {
    let turn = |i: usize| values[i % rows * columns + i / rows];
    let (values, shape) = match turned {
        true => ((0..values.len()).map(turn).collect(), [columns, rows]),
        false => (values.to_vec(), [rows, columns]),
    };
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}
