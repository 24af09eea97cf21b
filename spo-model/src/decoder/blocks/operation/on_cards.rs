//! On graphics cards a kernel turns the codes back into numbers, a whole weight at a time but for the largest.

use super::{BlockLayout, BlockOperation, back, forth};
use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use spo_kernels::gpu::dequantise::Layout;
use spo_kernels::gpu::dequantised;
use spo_kernels::gpu::matmul::product;
use std::ops::Range;

/// Values turned back into numbers at a time.
const CHUNK_VALUES: usize = 1 << 26;

impl BlockLayout {
    /// Rows of the weight, from its codes and scales.
    fn rows(&self, [packed, scales]: [CubeTensor; 2], dtype: DType) -> impl Fn(Range<usize>) -> CubeTensor {
        let form = self.form.clone();
        let layout = Layout { bits: form.bits, block: form.block, inputs: self.inputs, adds: form.adds };
        move |range| dequantised(layout, [packed.clone(), scales.clone()], &form.values, range, dtype)
    }
}

fn times(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    product(&a, &b, a.dtype)
}

impl BlockOperation for CubeBackend {
    fn block_product(x: CubeTensor, packed: CubeTensor, scales: CubeTensor, layout: BlockLayout) -> CubeTensor {
        let rows = layout.rows([packed, scales], x.dtype());
        forth::<Self>(x, layout.chunks(CHUNK_VALUES), rows, times)
    }

    fn block_product_transposed(
        y: CubeTensor,
        packed: CubeTensor,
        scales: CubeTensor,
        layout: BlockLayout,
    ) -> CubeTensor {
        let rows = layout.rows([packed, scales], y.dtype());
        back::<Self>(y, layout.chunks(CHUNK_VALUES), rows, times)
    }
}
