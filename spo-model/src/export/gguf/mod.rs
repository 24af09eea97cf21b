//! GGUF, the file of llama.cpp and its relatives: weights, shape and tokenizer in one.
//!
//! Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, version 3. Names of tensors and
//! keys are those that llama.cpp's loaders look for.

mod encode;
mod splitting;
mod tokenizer;
mod write;

use super::ModelFiles;
use crate::gguf::architecture::Architecture;
use crate::gguf::tensors::Place;
use crate::gguf::{keys, tensors, unsupported};
use crate::parameters::{Parameter, for_each};
use crate::{CausalLm, ModelError};
use encode::Encoding;
use std::path::Path;
use write::Entry;

/// Number format of the matrices in a GGUF file; vectors are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Blocks of 32 values: an f16 scale and 8 bits each.
    Q8,
}

impl GgufType {
    /// `f32`, `f16` or `q8_0`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8_0",
        }
    }

    /// `general.file_type`
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8 => 7,
        }
    }

    /// How a tensor of this name and shape is stored: rows that do not fill blocks stay f16.
    fn encoding(self, name: &str, shape: &[usize]) -> Encoding {
        match self {
            // Positions are added to tokens, where readers want f32; what routes tokens is not rounded.
            _ if shape.len() == 1 || name.starts_with("position_embd") || name.contains("ffn_gate_inp") => {
                Encoding::F32
            }
            Self::F32 => Encoding::F32,
            Self::Q8 if shape[1].is_multiple_of(encode::BLOCK) => Encoding::Q8,
            Self::F16 | Self::Q8 => Encoding::F16,
        }
    }
}

/// Adds an expert's projection to the tensors of all experts. Experts come in their order.
fn add_expert(entries: &mut Vec<Entry>, place: Place, parameter: Parameter, dtype: GgufType) {
    let rows = parameter.shape[0] / place.names.len();
    for (index, name) in place.names.into_iter().enumerate() {
        let (part, own) = (rows * index..rows * (index + 1), parameter.clone());
        match entries.iter_mut().rev().find(|entry| entry.name() == name) {
            Some(entry) => entry.add(own, part),
            None => {
                let encoding = dtype.encoding(&name, &parameter.shape);
                entries.push(Entry::part(name, own, part, encoding));
            }
        }
    }
}

/// Saves a model without adapters as a GGUF file. `files` has its tokenizer.
///
/// # Errors
/// A model that llama.cpp would compute otherwise, or a tokenizer that it has no name for; a model that still has
/// adapters or a quantised base; a file that cannot be written.
pub fn save_gguf(
    model: &CausalLm,
    files: &ModelFiles,
    name: &str,
    dtype: GgufType,
    path: &Path,
) -> Result<(), ModelError> {
    super::require_whole(model, path)?;
    let architecture = Architecture::of(model.spec())?;
    let mut metadata = keys::metadata(architecture, model.spec());
    metadata.push(("general.file_type".into(), keys::Value::U32(dtype.file_type())));
    metadata.extend(tokenizer::metadata(files, model.spec(), name)?);
    let factors = tensors::frequency_factors(model.spec()).into_iter();
    let mut entries: Vec<Entry> = factors.map(|(name, factors)| Entry::values(name, factors, Encoding::F32)).collect();
    let mut unknown = None;
    for_each(model, "", |parameter| match tensors::place(&parameter.path, architecture) {
        Some(place) if place.expert.is_some() => add_expert(&mut entries, place, parameter, dtype),
        Some(place) => {
            let (order, name) = (tensors::order(&parameter.path, architecture, model.spec()), place.names[0].clone());
            let (encoding, shape) = (dtype.encoding(&name, &parameter.shape), place.shape(&parameter.shape, 0));
            entries.push(Entry::new(name, parameter, order, encoding).shaped(shape));
        }
        None => unknown = Some(parameter.path),
    });
    match unknown {
        None => write::write(path, &metadata, entries),
        Some(tensor) => Err(unsupported(&format!("the tensor {tensor} of {} has no name there", model.spec().family))),
    }
}
