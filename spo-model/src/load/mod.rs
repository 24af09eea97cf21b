//! From a checkpoint to a model: strict names and shapes, one tensor at a time.

mod checkpoint;
mod dtype;
mod gguf;
mod header;
mod index;
mod mxfp4;
mod packed;
mod random;

pub use checkpoint::{Checkpoint, CheckpointSource};
pub use dtype::Storage;
pub use gguf::{GgufModel, load_gguf};
pub use random::RandomSource;

use crate::decoder::blocks::BlockBits;
use crate::{CausalLm, ModelError, ModelSpec};
use burn::tensor::{Device, Tensor};
use memmap2::Mmap;
use std::path::Path;

/// In which form a model's weights are kept in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Storage type; `None`: as in the file.
    pub storage: Option<Storage>,
    /// Quantises the linear layers of the decoder blocks, one at a time as they are read.
    pub blocks: Option<BlockBits>,
}

/// Where a model takes its weights from while it is built.
pub trait WeightSource {
    /// The tensor at a module path such as `layers.0.mlp.up_proj.weight`.
    ///
    /// # Errors
    /// Whatever the source finds wrong with it.
    fn tensor<const D: usize>(&mut self, path: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError>;

    /// Whether the linear layers of the decoder blocks are to be quantised.
    fn blocks(&self) -> Option<BlockBits> {
        None
    }
}

impl CausalLm {
    /// Loads a Hugging Face model directory or a GGUF file, stored as `storage` or, if `None`, as in the file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_dir(dir: &Path, storage: Option<Storage>, device: &Device) -> Result<Self, ModelError> {
        Self::open(dir, LoadOptions { storage, blocks: None }, device)
    }

    /// Loads a Hugging Face model directory or a GGUF file, whose blocks are dequantised.
    ///
    /// # Errors
    /// Missing files, an unsupported architecture, damaged weights, missing, unexpected or wrongly
    /// shaped tensors: each named.
    pub fn open(dir: &Path, options: LoadOptions, device: &Device) -> Result<Self, ModelError> {
        crate::family::Registry::builtin().open(dir, options, device)
    }

    /// Builds a model of this spec from an opened checkpoint.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_checkpoint(
        spec: &ModelSpec,
        checkpoint: &Checkpoint,
        options: LoadOptions,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let mut source = checkpoint.source(spec.layout, options, device);
        let model = Self::load(spec, &mut source)?;
        source.finish(spec)?;
        Ok(model)
    }
}

/// Takes pages of a file that were read out of the process's resident memory: loading needs the memory of the weights once.
#[cfg(unix)]
fn release(map: &Mmap, start: usize, length: usize) {
    use memmap2::UncheckedAdvice::DontNeed;
    // SAFETY: the map is read-only and of a file, so a page that is looked at again comes from the file again.
    // A system that refuses keeps the pages: that costs memory only.
    let _ = unsafe { map.unchecked_advise_range(DontNeed, start, length) };
}

#[cfg(not(unix))]
fn release(_: &Mmap, _: usize, _: usize) {}
