//! Frozen weights in 8 or 4 bits, for training adapters on a base that would not fit otherwise
//! (QLoRA, Dettmers et al. 2023, arXiv 2305.14314).
//!
//! A block of [`BLOCK`] values of a row shares an f32 scale, its largest magnitude. An 8-bit code is a
//! whole number of 127ths of it; a 4-bit code names one of the 16 quantiles of the normal
//! distribution that QLoRA calls NF4. A product turns a few rows at a time back into numbers, in the
//! forward and the backward pass: no dense copy of a weight is kept.
//!
//! On graphics cards a file's own blocks are kept in the same way, with the file's codes, scales and what they are added to.

mod operation;

use crate::quant::packed::coded::{Coded, Form};
use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use operation::BlockLayout;
use rayon::prelude::*;
use std::sync::Arc;

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
    pub fn bytes(self, dims: [usize; 2]) -> usize {
        self.form().bytes(dims)
    }

    fn form(self) -> Form {
        Form { bits: self.count(), block: BLOCK, values: self.values(), adds: false }
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

/// A weight `[out, in]` in codes.
#[derive(Module, Debug)]
pub struct BlockWeight {
    /// Codes, several in a word: word `j` of a row holds columns `j`, `j + words`, `j + 2 · words`, …
    packed: Param<Tensor<2, Int>>,
    /// f32 `[out, blocks]`; where something is added, that beside them: `[out, 2 · blocks]`.
    scales: Param<Tensor<2>>,
    /// The inputs in the order of the columns, `[in]`, where that is another one.
    order: Option<Param<Tensor<1, Int>>>,
    #[module(skip)]
    form: Arc<Form>,
    #[module(skip)]
    shape: [usize; 2],
}

impl BlockWeight {
    /// Quantises a weight `[out, in]`, on the CPU.
    pub fn new(weight: Tensor<2>, bits: BlockBits) -> Self {
        let (shape, device) = (weight.dims(), weight.device());
        let values: Vec<f32> = weight.cast(DType::F32).into_data().iter::<f32>().collect();
        let rows = values.par_chunks_exact(shape[1]).map(|row| quantise_row(row, bits));
        let (codes, scales): (Vec<_>, Vec<_>) = rows.unzip();
        let coded =
            Coded { form: bits.form(), codes: codes.concat(), scales: scales.concat(), adds: vec![], order: None };
        Self::coded(coded, shape, &device)
    }

    /// A weight of this shape `[out, in]` that is in codes already.
    pub fn coded(coded: Coded, shape: [usize; 2], device: &Device) -> Self {
        let Coded { form, codes, scales, adds, order } = coded;
        let ([out, inputs], blocks) = (shape, shape[1].div_ceil(form.block));
        let words = blocks * form.block * form.bits / 32;
        let mut packed = vec![0i32; out * words];
        packed.par_chunks_exact_mut(words.max(1)).zip(codes.par_chunks_exact(inputs.max(1))).for_each(
            |(row, codes)| {
                for (plane, codes) in codes.chunks(words).enumerate() {
                    row.iter_mut().zip(codes).for_each(|(word, code)| *word |= i32::from(*code) << (form.bits * plane));
                }
            },
        );
        let of_row = |values: &[f32], row: usize| values[row * blocks..][..blocks].to_vec();
        let scales = match form.adds {
            true => (0..out).flat_map(|row| [of_row(&scales, row), of_row(&adds, row)].concat()).collect(),
            false => scales,
        };
        let width = scales.len() / out.max(1);
        let packed = Tensor::from_data(TensorData::new(packed, [out, words]), (device, DType::I32));
        let scales = Tensor::from_data(TensorData::new(scales, [out, width]), (device, DType::F32));
        let order = order.map(|order| {
            let order: Vec<i32> = order.into_iter().map(u32::cast_signed).collect();
            Tensor::from_data(TensorData::new(order, [inputs]), (device, DType::I32))
        });
        Self {
            packed: Param::initialized(ParamId::new(), packed),
            scales: Param::initialized(ParamId::new(), scales),
            order: order.map(|order| Param::initialized(ParamId::new(), order)),
            form: Arc::new(form),
            shape,
        }
    }

    /// `[out, in]`
    pub fn dims(&self) -> [usize; 2] {
        self.shape
    }

    /// Bytes of codes, scales and what is added.
    pub fn bytes(&self) -> usize {
        self.form.bytes(self.shape)
    }

    /// `x Wᵀ`: `[tokens, in]` → `[tokens, out]`, in the type of `x`; differentiable in `x`.
    pub fn product(&self, x: Tensor<2>) -> Tensor<2> {
        let x = match &self.order {
            Some(order) => x.select(1, order.val()),
            None => x,
        };
        operation::product(x, self.packed.val(), self.scales.val(), self.layout())
    }

    /// The whole weight `[out, in]` in f32, by way of the CPU.
    pub fn dense(&self) -> Tensor<2> {
        let ([_, inputs], device, Form { bits, block, values, adds }) =
            (self.shape, self.scales.val().device(), &*self.form);
        let packed: Vec<i32> = self.packed.val().into_data().iter::<i32>().collect();
        let scales: Vec<f32> = self.scales.val().into_data().iter::<f32>().collect();
        let order = self.order.as_ref().map(|order| order.val().into_data().iter::<i32>().collect::<Vec<_>>());
        let (words, width) = (self.packed.val().dims()[1], self.scales.val().dims()[1]);
        let rows = packed.par_chunks_exact(words).zip(scales.par_chunks_exact(width));
        let dense = rows.flat_map_iter(|(row, scales)| {
            let mut numbers = vec![0.0; inputs];
            for column in 0..inputs {
                let code = row[column % words].cast_unsigned() >> (bits * (column / words)) & ((1 << bits) - 1);
                let number = values[code as usize] * scales[column / block];
                let number = if *adds { number + scales[width / 2 + column / block] } else { number };
                numbers[order.as_ref().map_or(column, |order| order[column] as usize)] = number;
            }
            numbers
        });
        Tensor::from_data(TensorData::new(dense.collect::<Vec<f32>>(), self.shape), &device)
    }

    fn layout(&self) -> BlockLayout {
        BlockLayout { form: self.form.clone(), out: self.shape[0], inputs: self.shape[1] }
    }
}

/// Codes and scales of a row.
fn quantise_row(row: &[f32], bits: BlockBits) -> (Vec<u8>, Vec<f32>) {
    let (mut codes, mut scales) = (vec![], vec![]);
    for block in row.chunks(BLOCK) {
        let scale = block.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
        codes.extend(block.iter().map(|value| bits.code(if scale > 0.0 { value / scale } else { 0.0 }) as u8));
        scales.push(scale);
    }
    (codes, scales)
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
            let x = weight(4, 70);
            assert!(largest(blocks.product(x.clone()) - x.matmul(dense.transpose())) < 1e-7);
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
