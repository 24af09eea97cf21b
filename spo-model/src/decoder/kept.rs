//! Frozen weights in the blocks that their file stores them in.

use super::blocks::{BlockBits, BlockWeight};
use crate::device::on_cpu;
use crate::quant::packed::Packed;
use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use spo_kernels::blocks::{self, Blocks};
use std::ops::Range;
use std::sync::Arc;

/// In which blocks the linear layers of the decoder blocks are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Quantised anew, one at a time as they are read.
    Quantised(BlockBits),
    /// As the file stores them, in blocks or in 16-bit floats; those that it stores in f32 are loaded as numbers.
    AsStored,
}

impl Kept {
    /// `8-bit`, `4-bit` or `as-stored`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quantised(bits) => bits.name(),
            Self::AsStored => "as-stored",
        }
    }

    /// Bits of values that are quantised anew.
    pub fn bits(self) -> Option<BlockBits> {
        match self {
            Self::Quantised(bits) => Some(bits),
            Self::AsStored => None,
        }
    }
}

impl From<BlockBits> for Kept {
    fn from(bits: BlockBits) -> Self {
        Self::Quantised(bits)
    }
}

/// A weight `[out, in]` in its file's blocks, in host memory. A product decodes a tile at a time.
#[derive(Module, Debug)]
pub struct KeptWeight {
    /// blake3 of form and bytes, in words: what tells weights apart.
    digest: Param<Tensor<1, Int>>,
    #[module(skip)]
    matrix: Arc<dyn Blocks>,
    #[module(skip)]
    bytes: usize,
}

/// A weight in its file's blocks, as its device keeps it.
#[derive(Debug)]
pub enum StoredWeight {
    /// In host memory.
    Host(KeptWeight),
    /// As codes on a graphics card.
    Card(BlockWeight),
}

impl StoredWeight {
    /// A weight of a model on this device.
    ///
    /// # Errors
    /// What does not fit a card.
    pub fn new(matrix: Packed, device: &Device) -> Result<Self, String> {
        Ok(match on_cpu(device) {
            true => Self::Host(KeptWeight::new(matrix, device)),
            false => Self::Card(BlockWeight::coded(matrix.coded()?, matrix.dims(), device)),
        })
    }
}

impl Blocks for Packed {
    fn dims(&self) -> [usize; 2] {
        self.dims()
    }

    fn unit(&self) -> usize {
        self.unit()
    }

    fn decode(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        self.decode(row, columns, out);
    }
}

impl KeptWeight {
    /// A weight of a model on this device.
    pub fn new(matrix: Packed, device: &Device) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(matrix.form().as_bytes());
        matrix.each_part(|part| {
            hasher.update(part);
        });
        let words = hasher.finalize();
        let words: Vec<i32> = words.as_bytes().as_chunks().0.iter().map(|word| i32::from_le_bytes(*word)).collect();
        let digest = TensorData::new(words, [8]);
        let digest = Param::initialized(ParamId::new(), Tensor::from_data(digest, (device, DType::I32)));
        Self { digest, bytes: matrix.bytes(), matrix: Arc::new(matrix) }
    }

    /// `[out, in]`
    pub fn dims(&self) -> [usize; 2] {
        self.matrix.dims()
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `x Wᵀ`: `[tokens, in]` → `[tokens, out]`, in the type of `x`; differentiable in `x`.
    pub fn product(&self, x: Tensor<2>) -> Tensor<2> {
        blocks::block_linear(x, &self.matrix)
    }

    /// The whole weight `[out, in]` in f32.
    pub fn dense(&self) -> Tensor<2> {
        blocks::dense(self.matrix.as_ref(), &self.digest.val().device())
    }
}
