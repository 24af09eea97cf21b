//! Writing models where others can read them.

pub(crate) mod gguf;
mod hf;
mod manifest;
mod score_config;

pub use crate::load::ModelFiles;
pub use gguf::{GgufType, save_gguf};
pub use hf::{SHARD_BYTES, save};
pub use manifest::{Base, Manifest, PROBE_TOKENS, Parity, Probe, largest_difference, rounding};

use crate::load::Storage;
use crate::parameters::Parameter;
use crate::{CausalLm, ModelError};
use safetensors::tensor::View;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// Refuses a model whose weights alone are not what it computes.
pub(crate) fn require_whole(model: &CausalLm, path: &Path) -> Result<(), ModelError> {
    let refuse = |reason: &str| Err(ModelError::Adapter { file: path.display().to_string(), reason: reason.into() });
    if model.has_lora() {
        return refuse("merge the adapters before saving a whole model");
    }
    if model.is_quantised() {
        return refuse("a quantised base is not saved; merge the adapter into the model it was made from");
    }
    if model.steering.is_some() {
        return refuse("a policy for many users is saved as an adapter; no weights of a model alone hold it");
    }
    Ok(())
}

/// Creates a directory and its parents.
pub(crate) fn create_dir(dir: &Path) -> Result<(), ModelError> {
    std::fs::create_dir_all(dir).map_err(|e| ModelError::io(dir, e))
}

/// Writes a file aside, syncs it and renames it into place.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let aside = path.with_added_extension("part");
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    };
    write().map_err(|e| ModelError::io(path, e))
}

/// Writes parameters under their `path` as names, each read from the device only when its turn
/// comes.
pub(crate) fn write_safetensors(parameters: Vec<Parameter>, path: &Path) -> Result<(), ModelError> {
    write_stored(parameters.into_iter().map(Stored::from).collect(), path)
}

/// As [`write_safetensors`], tensors that may be made of several parameters.
pub(crate) fn write_stored(tensors: Vec<Stored>, path: &Path) -> Result<(), ModelError> {
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let tensors = tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor));
    safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(|error| match error {
        safetensors::SafeTensorError::IoError(e) => ModelError::io(path, e),
        other => ModelError::Safetensors { path: path.into(), reason: other.to_string() },
    })?;
    let finish = || {
        // The writer's temporary file is private to the user; a model is as readable as any file.
        #[cfg(unix)]
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        OpenOptions::new().read(true).open(path)?.sync_all()
    };
    finish().map_err(|e| ModelError::io(path, e))
}

/// A tensor of a file.
pub(crate) struct Stored {
    /// Its name there.
    pub name: String,
    /// Its shape there.
    pub shape: Vec<usize>,
    /// The parameters that it is made of, one after the other, and whether each, `[out, in]`, is stored as `[in, out]`.
    pub parts: Vec<(Parameter, bool)>,
}

impl From<Parameter> for Stored {
    fn from(parameter: Parameter) -> Self {
        Self { name: parameter.path.clone(), shape: parameter.shape.clone(), parts: vec![(parameter, false)] }
    }
}

impl Stored {
    fn storage(&self) -> Storage {
        let dtype = self.parts[0].0.value.dtype();
        Storage::of_dtype(dtype).expect("models are loaded in one of the three storage types")
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.storage().bytes()
    }
}

impl View for Stored {
    fn dtype(&self) -> safetensors::Dtype {
        self.storage().file_dtype()
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = Vec::with_capacity(self.bytes());
        for (part, transposed) in &self.parts {
            let value = match (transposed, part.shape.as_slice()) {
                (true, &[out, inputs]) => part.value.clone().reshape([out, inputs]).transpose().reshape([out * inputs]),
                _ => part.value.clone(),
            };
            bytes.extend_from_slice(value.into_data().as_bytes());
        }
        Cow::Owned(bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes()
    }
}
