//! Models out of GGUF files: metadata as `config.json`, tensors dequantised one at a time.

mod config;
mod rope;
mod source;

use super::{LoadOptions, ModelFiles};
use crate::device::check_dtype;
use crate::family::Registry;
use crate::gguf::architecture::Architecture;
use crate::gguf::tensors;
use crate::quant::packed::StoredBlocks;
use crate::{CausalLm, ModelError, ModelSpec};
use burn::tensor::Device;
use serde_json::Value;
use source::GgufSource;
use spo_data::gguf::{Gguf, tokenizer_files};
use std::path::Path;

/// A GGUF file whose metadata were understood.
#[derive(Debug)]
pub struct GgufModel {
    file: Gguf,
    architecture: &'static Architecture,
    config: Value,
    spec: ModelSpec,
}

impl GgufModel {
    /// Opens a file, and its other parts where it is split; the model is of one of these families.
    ///
    /// # Errors
    /// It is damaged; an architecture, a key or a value that this crate does not know: each named.
    pub fn open(families: &Registry, path: &Path) -> Result<Self, ModelError> {
        let file = Gguf::open(path)?;
        let (architecture, mut config) = config::read(&file)?;
        let parse = |config: &Value| families.parse(&format!("{}: its metadata", path.display()), &config.to_string());
        let mut spec = parse(&config)?;
        if rope::set_attention_factor(&file, architecture, &spec, &mut config)? {
            spec = parse(&config)?;
        }
        config::check(&file, architecture, &spec)?;
        Ok(Self { file, architecture, config, spec })
    }

    /// The model's shape.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The files that a Hugging Face directory of this model has beside its weights.
    ///
    /// # Errors
    /// The tokenizer is of a kind that is not known.
    pub fn files(&self) -> Result<ModelFiles, ModelError> {
        let mut files = vec![("config.json".to_owned(), format!("{:#}\n", self.config).into_bytes())];
        files.extend(tokenizer_files(&self.file)?);
        Ok(ModelFiles { files })
    }

    /// The matrix `[out, in]` at a module path in the blocks that the file has it in; `None` for f32.
    pub(crate) fn in_blocks(&self, path: &str, shape: [usize; 2]) -> Option<StoredBlocks> {
        tensors::in_blocks(path, shape, self.architecture, &self.file)
    }

    /// The model, its blocks as the options say.
    ///
    /// # Errors
    /// Missing, unexpected or wrongly shaped tensors, or some of a type that is not read: each named.
    pub fn load(&self, options: LoadOptions, device: &Device) -> Result<CausalLm, ModelError> {
        load(&self.file, self.architecture, &self.spec, options, device)
    }
}

/// Loads the weights of a file as those of a model that is known.
///
/// # Errors
/// As [`GgufModel::load`], or files cannot hold such a model.
pub fn load_gguf(path: &Path, spec: &ModelSpec, options: LoadOptions, device: &Device) -> Result<CausalLm, ModelError> {
    load(&Gguf::open(path)?, Architecture::of(spec)?, spec, options, device)
}

fn load(
    file: &Gguf,
    architecture: &Architecture,
    spec: &ModelSpec,
    options: LoadOptions,
    device: &Device,
) -> Result<CausalLm, ModelError> {
    let mut source = GgufSource::new(file, architecture, spec, options, device);
    check_dtype(device, source.storage)?;
    let model = CausalLm::load(spec, &mut source)?;
    source.finish()?;
    Ok(model)
}
