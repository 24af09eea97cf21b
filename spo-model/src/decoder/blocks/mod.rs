//! Frozen weights in 8 or 4 bits, for training adapters on a base that would not fit otherwise
//! (QLoRA, Dettmers et al. 2023, arXiv 2305.14314).
//!
//! A block of [`BLOCK`] values of a row shares an f32 scale, its largest magnitude. An 8-bit code is a
//! whole number of 127ths of it; a 4-bit code names one of the 16 quantiles of the normal
//! distribution that QLoRA calls NF4. A product turns a few rows at a time back into numbers, in the
//! forward and the backward pass: no dense copy of a weight is kept.

mod operation;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Int, Tensor, TensorData};
use operation::BlockLayout;
use rayon::prelude::*;

/// Values that share a scale.
pub const BLOCK: usize = 64;

/// NF4: the 16 quantiles of N(0, 1), scaled to [−1, 1] (arXiv 2305.14314, appendix E).
#[rustfmt::skip]
const NORMAL_QUANTILES: [f32; 16] = [
    -1.0, -0.696_192_8, -0.525_073_05, -0.394_917_5, -0.284_441_38, -0.184_773_43, -0.091_050_036, 0.0,
    0.079_580_3, 0.160_930_2, 0.246_112_3, 0.337_915_24, 0.440_709_83, 0.562_617, 0.722_956_84, 1.0,
];

/// Bits of a quantised value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub enum BlockBits {
    /// Whole numbers of 127ths of the block's largest magnitude.
    #[serde(rename = "8-bit")]
    Eight,
    /// Quantiles of the normal distribution.
    #[serde(rename = "4-bit")]
    Four,
}

impl BlockBits {
    /// `8-bit` or `4-bit`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eight => "8-bit",
            Self::Four => "4-bit",
        }
    }

    fn count(self) -> usize {
        match self {
            Self::Eight => 8,
            Self::Four => 4,
        }
    }

    /// Bytes of a weight of this shape `[out, in]`.
    pub fn bytes(self, [out, inputs]: [usize; 2]) -> usize {
        let padded = inputs.next_multiple_of(BLOCK);
        out * (padded * self.count() / 8 + 4 * padded / BLOCK)
    }

    /// The values of all codes, as shares of a block's scale.
    fn values(self) -> Vec<f32> {
        match self {
            Self::Eight => (0..256).map(|code| (code as f32 - 128.0) / 127.0).collect(),
            Self::Four => NORMAL_QUANTILES.to_vec(),
        }
    }

    /// The code whose value is nearest to `share`, which is in [−1, 1].
    fn code(self, share: f32) -> u32 {
        match self {
            Self::Eight => ((share * 127.0).round() as i32 + 128) as u32,
            Self::Four => {
                let above = NORMAL_QUANTILES.partition_point(|value| *value < share).min(15);
                let below = above.saturating_sub(1);
                let nearer_below = share - NORMAL_QUANTILES[below] < NORMAL_QUANTILES[above] - share;
                (if nearer_below { below } else { above }) as u32
            }
        }
    }
}

/// A quantised weight `[out, in]`.
#[derive(Module, Debug)]
pub struct BlockWeight {
    /// Codes, several in a word: word `j` of a row holds columns `j`, `j + words`, `j + 2 · words`, …
    packed: Param<Tensor<2, Int>>,
    /// f32 `[out, blocks]`
    scales: Param<Tensor<2>>,
    #[module(skip)]
    bits: BlockBits,
    #[module(skip)]
    shape: [usize; 2],
}

impl BlockWeight {
    /// Quantises a weight `[out, in]`, on the CPU.
    pub fn new(weight: Tensor<2>, bits: BlockBits) -> Self {
        let (shape, device) = (weight.dims(), weight.device());
        let values: Vec<f32> = weight.cast(DType::F32).into_data().iter::<f32>().collect();
        let padded = shape[1].next_multiple_of(BLOCK);
        let words = padded * bits.count() / 32;
        let rows = values.par_chunks_exact(shape[1]).map(|row| quantise_row(row, words, bits));
        let (packed, scales): (Vec<_>, Vec<_>) = rows.unzip();
        let packed = TensorData::new(packed.concat(), [shape[0], words]);
        let scales = TensorData::new(scales.concat(), [shape[0], padded / BLOCK]);
        let packed = Tensor::from_data(packed, (&device, DType::I32));
        let scales = Tensor::from_data(scales, (&device, DType::F32));
        Self {
            packed: Param::initialized(ParamId::new(), packed),
            scales: Param::initialized(ParamId::new(), scales),
            bits,
            shape,
        }
    }

    /// `[out, in]`
    pub fn dims(&self) -> [usize; 2] {
        self.shape
    }

    /// `x Wᵀ`: `[tokens, in]` → `[tokens, out]`, in the type of `x`; differentiable in `x`.
    pub fn product(&self, x: Tensor<2>) -> Tensor<2> {
        operation::product(x, self.packed.val(), self.scales.val(), self.layout())
    }

    /// `y W`: `[tokens, out]` → `[tokens, in]`, in the type of `y`.
    pub fn product_transposed(&self, y: Tensor<2>) -> Tensor<2> {
        operation::product_transposed(y, self.packed.val(), self.scales.val(), self.layout())
    }

    /// The whole weight `[out, in]` in f32, by way of the CPU.
    pub fn dense(&self) -> Tensor<2> {
        let ([_, inputs], device) = (self.shape, self.scales.val().device());
        let packed: Vec<i32> = self.packed.val().into_data().iter::<i32>().collect();
        let scales: Vec<f32> = self.scales.val().into_data().iter::<f32>().collect();
        let words = self.packed.val().dims()[1];
        let (values, count) = (self.bits.values(), self.bits.count());
        let rows = packed.par_chunks_exact(words).zip(scales.par_chunks_exact(self.scales.val().dims()[1]));
        let dense = rows.flat_map_iter(|(row, scales)| {
            let value = |column: usize| {
                let code = row[column % words].cast_unsigned() >> (count * (column / words)) & ((1 << count) - 1);
                values[code as usize] * scales[column / BLOCK]
            };
            (0..inputs).map(value).collect::<Vec<_>>()
        });
        Tensor::from_data(TensorData::new(dense.collect::<Vec<f32>>(), self.shape), &device)
    }

    fn layout(&self) -> BlockLayout {
        BlockLayout { bits: self.bits, out: self.shape[0], inputs: self.shape[1] }
    }
}

/// Words and scales of a row.
fn quantise_row(row: &[f32], words: usize, bits: BlockBits) -> (Vec<i32>, Vec<f32>) {
    let mut packed = vec![0u32; words];
    let mut scales = vec![];
    let padded = words * 32 / bits.count();
    for start in (0..padded).step_by(BLOCK) {
        let block = row.get(start..row.len().min(start + BLOCK)).unwrap_or_default();
        let scale = block.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
        for column in start..start + BLOCK {
            let value = row.get(column).copied().unwrap_or_default();
            let code = bits.code(if scale > 0.0 { value / scale } else { 0.0 });
            packed[column % words] |= code << (bits.count() * (column / words));
        }
        scales.push(scale);
    }
    (packed.into_iter().map(u32::cast_signed).collect(), scales)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device;
    use burn::tensor::Distribution;

    fn weight(out: usize, inputs: usize) -> Tensor<2> {
        Tensor::random([out, inputs], Distribution::Normal(0.0, 0.02), &device::cpu())
    }

    fn numbers(x: Tensor<2>) -> Vec<f32> {
        x.into_data().iter::<f32>().collect()
    }

    fn largest(x: Tensor<2>) -> f32 {
        numbers(x.abs().max().unsqueeze())[0]
    }

    #[test]
    fn every_value_is_within_half_a_step() {
        // 100 columns: the last block is cut short, and 8-bit rows end inside a word's plane.
        for (bits, half_step) in [(BlockBits::Eight, 0.5 / 127.0), (BlockBits::Four, 0.152)] {
            let dense = weight(7, 100);
            let blocks = BlockWeight::new(dense.clone(), bits);
            let (dense, found) = (numbers(dense), numbers(blocks.dense()));
            for (row, found) in dense.chunks(100).zip(found.chunks(100)) {
                for (block, found) in row.chunks(BLOCK).zip(found.chunks(BLOCK)) {
                    let scale = block.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
                    for (value, found) in block.iter().zip(found) {
                        assert!((value - found).abs() <= half_step * scale * 1.001, "{bits:?}: {value} {found}");
                    }
                }
            }
        }
    }

    #[test]
    fn codes_come_back_as_they_are() {
        for bits in [BlockBits::Eight, BlockBits::Four] {
            let once = BlockWeight::new(weight(5, 130), bits).dense();
            let twice = BlockWeight::new(once.clone(), bits).dense();
            assert_eq!(largest(once - twice), 0.0, "{bits:?}");
        }
        let zeros = BlockWeight::new(Tensor::zeros([2, 64], &device::cpu()), BlockBits::Four);
        assert_eq!(largest(zeros.dense()), 0.0);
    }

    #[test]
    fn products_are_those_of_the_dense_weight() {
        for bits in [BlockBits::Eight, BlockBits::Four] {
            let blocks = BlockWeight::new(weight(9, 70), bits);
            let dense = blocks.dense();
            let (x, y) = (weight(4, 70), weight(4, 9));
            assert!(largest(blocks.product(x.clone()) - x.matmul(dense.clone().transpose())) < 1e-7);
            assert!(largest(blocks.product_transposed(y.clone()) - y.matmul(dense)) < 1e-7);
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_dense_weight() {
        let blocks = BlockWeight::new(weight(9, 70), BlockBits::Four);
        let gradients = weight(4, 9);
        let x = weight(4, 70).autodiff().require_grad();
        let mut tape = (blocks.product(x.clone()) * gradients.clone().autodiff()).sum().backward();
        let found = x.grad_remove(&mut tape).expect("the product depends on x");
        assert!(largest(found - gradients.matmul(blocks.dense())) < 1e-7);
    }

    #[test]
    fn bytes_are_those_kept() {
        for bits in [BlockBits::Eight, BlockBits::Four] {
            let blocks = BlockWeight::new(weight(9, 70), bits);
            let kept = 4 * (blocks.packed.val().shape().num_elements() + blocks.scales.val().shape().num_elements());
            assert_eq!(bits.bytes([9, 70]), kept);
        }
    }
}
