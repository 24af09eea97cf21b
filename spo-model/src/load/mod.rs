//! From a checkpoint to a model: strict names and shapes, one tensor at a time.

mod checkpoint;
mod dtype;
mod files;
mod gguf;
mod header;
mod index;
mod packed;

pub use crate::decoder::kept::Kept;
pub use crate::decoder::source::{RandomSource, WeightSource};
pub use crate::storage::Storage;
pub use checkpoint::{Checkpoint, CheckpointSource};
pub use files::ModelFiles;
pub use gguf::{GgufModel, load_gguf};

use crate::family::Registry;
use crate::{CausalLm, ModelError, ModelSpec};
use burn::tensor::Device;
use memmap2::Mmap;
use spo_data::gguf::is_gguf;
use std::path::Path;

/// In which form a model's weights are kept in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Storage type; `None`: as in the file.
    pub storage: Option<Storage>,
    /// In which blocks the linear layers of the decoder blocks are kept; `None`: as numbers.
    pub blocks: Option<Kept>,
}

impl Registry {
    /// Reads the shape of a model: `config.json` of a directory, or the metadata of a GGUF file.
    ///
    /// # Errors
    /// A missing directory or file, unusable JSON, an unknown or refused `model_type`, a missing
    /// or inconsistent key.
    pub fn spec(&self, dir: &Path) -> Result<ModelSpec, ModelError> {
        if is_gguf(dir) {
            return Ok(GgufModel::open(self, dir)?.spec().clone());
        }
        let path = dir.join("config.json");
        if !path.exists() {
            return Err(ModelError::MissingFile { dir: dir.into(), file: "config.json".into() });
        }
        let text = std::fs::read_to_string(&path).map_err(|e| ModelError::io(&path, e))?;
        self.parse(&path.display().to_string(), &text)
    }
}

impl CausalLm {
    /// Builds a model of this spec from an opened checkpoint.
    ///
    /// # Errors
    /// Damaged weights, missing, unexpected or wrongly shaped tensors: each named.
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
