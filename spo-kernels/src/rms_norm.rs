//! RMS norm (Zhang & Sennrich 2019, arXiv 1910.07467) over the last dimension: `y = x / √(mean(x²) + ε) · (w + offset)`.
//!
//! With `s = 1 / √(mean(x²) + ε)`, `x̂ = s x` and `g = d_y · (w + offset)`: `d_x = s (g − x̂ mean(g x̂))`, `d_w = Σ d_y x̂`.

use crate::{operand, run};
use burn::backend::Flex;
use burn::tensor::{DType, Tensor};

/// The operation on `[x, weight]`.
#[derive(Debug, Clone, Copy)]
pub struct RmsNorm {
    /// ε
    pub epsilon: f32,
    /// What is added to the weight: 1 where weights are stored as the distance from it, else 0.
    pub offset: f32,
}

/// `[…, channels]` and `[channels]` → `[…, channels]`
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64, offset: f64) -> Tensor<D> {
    let form = RmsNorm { epsilon: epsilon as f32, offset: offset as f32 };
    let y = run::<Flex, 2, D>(form, [operand(&x), operand(&weight)]);
    #[cfg(feature = "gpu")]
    let y = y.or_else(|| run::<burn_cubecl::CubeBackend, 2, D>(form, [operand(&x), operand(&weight)]));
    y.unwrap_or_else(|| reference(x, weight, epsilon, offset))
}

/// The same in burn's operations, with statistics in f32 whatever the storage type. With an offset (Gemma's form) the
/// weight is multiplied before rounding, without one after it, as the models' own implementations do.
pub fn reference<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64, offset: f64) -> Tensor<D> {
    let dtype = x.dtype();
    let wide = if dtype == DType::F64 { dtype } else { DType::F32 };
    let scale = (x.clone().cast(wide).square().mean_dim(D - 1) + epsilon).sqrt().recip();
    if offset == 0.0 {
        return (x.cast(wide) * scale).cast(dtype) * weight.unsqueeze();
    }
    (x.cast(wide) * scale * (weight.cast(wide) + offset).unsqueeze()).cast(dtype)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_equal, random};

    #[test]
    fn norms() {
        for [rows, width] in [[1, 3], [5, 17], [200, 64], [70, 300], [442, 512], [40, 2048]] {
            for offset in [0.0, 0.5, 1.0] {
                let inputs = [random([rows, width]), random([1, width])];
                let flat = |weight: Tensor<2>| weight.reshape([width]);
                assert_equal(
                    &format!("{rows} {width} {offset}"),
                    inputs,
                    |[x, weight]| rms_norm(x, flat(weight), 1e-5, offset),
                    |[x, weight]| reference(x, flat(weight), 1e-5, offset),
                );
            }
        }
    }
}
