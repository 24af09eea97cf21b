//! The products of a quantised weight as an operation with a derivative of its own, because the tape of
//! an ordinary product would keep the dense weight.

use crate::quant::packed::coded::Form;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{FloatDType, Int, Shape, Slice, Tensor, TensorData};
use std::ops::Range;
use std::sync::Arc;

/// Values turned back into numbers at a time.
const CHUNK_VALUES: usize = 1 << 22;

/// How a weight `[out, in]` is stored.
#[derive(Debug, Clone)]
pub struct BlockLayout {
    /// How codes become numbers.
    pub form: Arc<Form>,
    /// Rows of the weight.
    pub out: usize,
    /// Columns of the weight.
    pub inputs: usize,
}

impl BlockLayout {
    /// The rows that are taken at a time, of about so many values.
    fn chunks(&self, values: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, out) = ((values / self.inputs).max(1), self.out);
        (0..out).step_by(rows).map(move |start| start..out.min(start + rows))
    }
}

/// `x Wᵀ`, see [`super::BlockWeight::product`].
pub fn product(x: Tensor<2>, packed: Tensor<2, Int>, scales: Tensor<2>, layout: BlockLayout) -> Tensor<2> {
    let (x, packed, scales) = (x.into_dispatch(), packed.into_dispatch(), scales.into_dispatch());
    Tensor::from_dispatch(Dispatch::block_product(x, packed, scales, layout))
}

/// Products with a weight in codes `[out, words]`, with scales `[out, blocks]` or, with what is added, `[out, 2 · blocks]`.
#[backend_extension(
    Autodiff,
    Flex,
    Cube: cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda")),
    Fusion: cfg(feature = "fusion"),
)]
pub trait BlockOperation: Backend {
    /// `[tokens, in]` → `[tokens, out]`
    #[fusion(default)]
    fn block_product(
        x: FloatTensor<Self>,
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: BlockLayout,
    ) -> FloatTensor<Self> {
        let dtype = x.dtype().into();
        let rows = |part| rows::<Self>(&packed, &scales, &layout, part, dtype);
        forth::<Self>(x, layout.chunks(CHUNK_VALUES), rows, Self::float_matmul)
    }

    /// `[tokens, out]` → `[tokens, in]`
    #[fusion(default)]
    fn block_product_transposed(
        y: FloatTensor<Self>,
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: BlockLayout,
    ) -> FloatTensor<Self> {
        let dtype = y.dtype().into();
        let rows = |part| rows::<Self>(&packed, &scales, &layout, part, dtype);
        back::<Self>(y, layout.chunks(CHUNK_VALUES), rows, Self::float_matmul)
    }
}

/// `x Wᵀ`, by parts of the weight's rows.
fn forth<B: Backend>(
    x: FloatTensor<B>,
    parts: impl Iterator<Item = Range<usize>>,
    rows: impl Fn(Range<usize>) -> FloatTensor<B>,
    times: impl Fn(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let mut products: Vec<_> = parts.map(|part| times(x.clone(), B::float_swap_dims(rows(part), 0, 1))).collect();
    if products.len() == 1 { products.remove(0) } else { B::float_cat(products, 1) }
}

/// `y W`, the same way.
fn back<B: Backend>(
    y: FloatTensor<B>,
    parts: impl Iterator<Item = Range<usize>>,
    rows: impl Fn(Range<usize>) -> FloatTensor<B>,
    times: impl Fn(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let tokens = y.shape()[0];
    let products = parts.map(|part| {
        let columns = B::float_slice(y.clone(), &[Slice::from(0..tokens), Slice::from(part.clone())]);
        times(columns, rows(part))
    });
    products.reduce(B::float_add).expect("a weight has rows")
}

/// Some rows of the weight, `[rows, in]`.
fn rows<B: Backend>(
    packed: &IntTensor<B>,
    scales: &FloatTensor<B>,
    layout: &BlockLayout,
    range: Range<usize>,
    dtype: FloatDType,
) -> FloatTensor<B> {
    let (count, Form { bits, block, values, adds }) = (range.len(), &*layout.form);
    let (words, blocks) = (packed.shape()[1], layout.inputs.div_ceil(*block));
    let part = |columns: Range<usize>| [Slice::from(range.clone()), Slice::from(columns)];
    let packed = B::int_slice(packed.clone(), &part(0..words));
    let planes = (0..32 / bits).map(|plane| {
        let shifted = B::bitwise_right_shift_scalar(packed.clone(), ((bits * plane) as i32).into());
        B::bitwise_and_scalar(shifted, ((1i32 << bits) - 1).into())
    });
    let codes = B::int_reshape(B::int_cat(planes.collect(), 1), Shape::new([count * blocks * block]));
    let values = B::float_from_data(TensorData::new(values.clone(), [values.len()]), &scales.device());
    let shares = B::float_reshape(B::float_select(values, 0, codes), Shape::new([count * blocks, *block]));
    let of_blocks = |columns| {
        let of = B::float_slice(scales.clone(), &part(columns));
        B::float_reshape(of, Shape::new([count * blocks, 1]))
    };
    let mut weight = B::float_mul(shares, of_blocks(0..blocks));
    if *adds {
        weight = B::float_add(weight, of_blocks(blocks..2 * blocks));
    }
    let weight = B::float_reshape(weight, Shape::new([count, blocks * block]));
    B::float_cast(B::float_slice(weight, &[Slice::from(0..count), Slice::from(0..layout.inputs)]), dtype)
}

impl BlockOperation for burn::backend::Flex {}

#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda"))]
mod on_cards;

impl<B: BlockOperation, C: CheckpointStrategy> BlockOperation for Autodiff<B, C> {
    fn block_product(
        x: FloatTensor<Self>,
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: BlockLayout,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Product;
        impl<B: BlockOperation> Backward<B, 1> for Product {
            type State = (IntTensor<B>, FloatTensor<B>, BlockLayout);

            fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
                let (packed, scales, layout) = ops.state;
                unary::<B, _>(ops.parents, ops.node, gradients, |y| {
                    B::block_product_transposed(y, packed, scales, layout)
                });
            }
        }
        let scales = scales.into_primitive();
        let product = B::block_product(x.primitive().clone(), packed.clone(), scales.clone(), layout.clone());
        match Product.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((packed, scales, layout), product),
            OpsKind::UnTracked(prepared) => prepared.finish(product),
        }
    }

    /// Only the backward pass needs it, where nothing is differentiated again.
    fn block_product_transposed(
        y: FloatTensor<Self>,
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: BlockLayout,
    ) -> FloatTensor<Self> {
        let y = B::block_product_transposed(y.into_primitive(), packed, scales.into_primitive(), layout);
        <Self as AutodiffBackend>::from_inner(y)
    }
}
