//! Rotary position embedding in the rotate-half layout (Su et al. 2021, arXiv 2104.09864): the first channels of each head
//! turn, `(a, b) → (a cos − b sin, b cos + a sin)` for their halves; the rest passes through. Gradients turn back.

use crate::cpu::Values;
#[cfg(feature = "gpu")]
use crate::gpu::form::DeviceAngles;
use crate::{operand, run};
use burn::backend::Flex;
use burn::tensor::Tensor;

/// Cosines and sines of the angles of a batch's tokens.
#[derive(Debug, Clone)]
pub struct Angles {
    /// Each `[tokens, 1, turned]` in f32 or f64, the second half of a row as the first.
    cos: Tensor<3>,
    sin: Tensor<3>,
    /// The same where the CPU's form runs.
    host: Option<(Values, Values)>,
    /// The same on a graphics card.
    #[cfg(feature = "gpu")]
    card: Option<DeviceAngles>,
}

impl Angles {
    /// Of cosines and sines, each `[tokens, 1, turned]` in f32 or wider; `turned` is even.
    pub fn new(cos: Tensor<3>, sin: Tensor<3>) -> Self {
        let host = Values::of(&cos).zip(Values::of(&sin));
        #[cfg(feature = "gpu")]
        let card = DeviceAngles::new(&cos, &sin);
        Self {
            cos,
            sin,
            host,
            #[cfg(feature = "gpu")]
            card,
        }
    }
}

/// The operation on `[x]`, with tables of a backend's own kind.
#[derive(Debug, Clone)]
pub struct Rotate<T> {
    /// Cosines and sines, `[tokens, turned]` each where the CPU's form takes them.
    pub angles: T,
    /// Channels of a head that turn; even.
    pub turned: usize,
    /// Heads of a token.
    pub heads: usize,
    /// Channels of a head.
    pub dim: usize,
}

/// `[tokens, heads, head_dim]` → the same shape
pub fn rotate(x: Tensor<3>, angles: &Angles) -> Tensor<3> {
    let ([_, heads, dim], [_, _, turned]) = (x.dims(), angles.cos.dims());
    let y = angles.host.clone().and_then(|angles| {
        let form = Rotate { angles, turned, heads, dim };
        run::<Flex, 1, 3>(form, [operand(&x)])
    });
    #[cfg(feature = "gpu")]
    let y = y.or_else(|| {
        let form = Rotate { angles: angles.card.clone()?, turned, heads, dim };
        run::<burn_cubecl::CubeBackend, 1, 3>(form, [operand(&x)])
    });
    y.unwrap_or_else(|| reference(x, angles))
}

/// The same in burn's operations.
pub fn reference(x: Tensor<3>, angles: &Angles) -> Tensor<3> {
    let [cos, sin] = [&angles.cos, &angles.sin].map(|table| table.clone().cast(x.dtype()));
    let ([_, _, width], [_, _, dim]) = (x.dims(), cos.dims());
    let turned = x.clone().narrow(2, 0, dim);
    let (first, second) = (turned.clone().narrow(2, 0, dim / 2), turned.clone().narrow(2, dim / 2, dim / 2));
    let turned = turned * cos + Tensor::cat(vec![second.neg(), first], 2) * sin;
    if dim == width { turned } else { Tensor::cat(vec![turned, x.narrow(2, dim, width - dim)], 2) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_equal, random};
    use burn::tensor::{DType, Device, TensorData};

    fn angles(tokens: usize, turned: usize, dtype: DType, device: &Device) -> Angles {
        let table = |f: fn(f32) -> f32| {
            let values = (0..tokens * turned).map(|index| {
                let (token, channel) = (index / turned, index % turned % (turned / 2));
                f((token * 3 % 50) as f32 * 100f32.powf(-2.0 * channel as f32 / turned as f32))
            });
            let data = TensorData::new(values.collect::<Vec<f32>>(), [tokens, 1, turned]);
            Tensor::<3>::from_data(data, device).cast(dtype)
        };
        Angles::new(table(f32::cos), table(f32::sin))
    }

    #[test]
    fn rotations() {
        for [tokens, heads, dim, turned] in
            [[1, 1, 2, 2], [9, 3, 6, 6], [200, 4, 32, 32], [40, 2, 16, 4], [442, 8, 64, 64]]
        {
            let of = |x: Tensor<2>, f: fn(Tensor<3>, &Angles) -> Tensor<3>| {
                let angles = angles(tokens, turned, x.dtype(), &x.device());
                f(x.reshape([tokens, heads, dim]), &angles).reshape([tokens, heads * dim])
            };
            let what = format!("{tokens} {heads} {dim} {turned}");
            let inputs = [random([tokens, heads * dim])];
            assert_equal(&what, inputs, |[x]| of(x, rotate), |[x]| of(x, reference));
        }
    }
}
