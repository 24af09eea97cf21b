//! A Hugging Face model directory: `config.json`, `model.safetensors`, tokenizer files.

use super::score_config::with_score_head;
use super::{Stored, create_dir, require_whole, write_file, write_stored};
use crate::load::{ModelFiles, Storage};
use crate::parameters::for_each;
use crate::{CausalLm, ModelError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Files of weights are at most this large, unless a single tensor is larger.
pub const SHARD_BYTES: usize = 5_000_000_000;

/// Saves a model without adapters as a Hugging Face directory, its weights in files of at most
/// `shard_bytes`. `config.json` keeps every key it had; only its `torch_dtype` (or `dtype`) is set to the
/// type written.
///
/// # Errors
/// The model still has adapters or a quantised base, or a file cannot be written.
pub fn save(model: &CausalLm, files: &ModelFiles, dir: &Path, shard_bytes: usize) -> Result<(), ModelError> {
    require_whole(model, dir)?;
    create_dir(dir)?;
    for (name, bytes) in &files.files {
        let path = dir.join(name);
        create_dir(path.parent().unwrap_or(dir))?;
        match name.as_str() {
            "config.json" => write_file(&path, &with_dtype(bytes, model, &path)?)?,
            _ => write_file(&path, bytes)?,
        }
    }
    write_shards(stored(model), dir, shard_bytes)
}

/// A model's tensors as its family's checkpoints have them, in the order of its parameters.
fn stored(model: &CausalLm) -> Vec<Stored> {
    let (layout, mut tensors, mut places) = (model.spec().layout, Vec::<Stored>::new(), BTreeMap::new());
    for_each(model, "", |parameter| {
        let transposed = layout.transposed(&parameter.path);
        let mut shape = parameter.shape.clone();
        if transposed {
            shape.reverse();
        }
        let Some((name, _)) = layout.stacked(&parameter.path) else {
            let name = layout.name(&parameter.path);
            let shape = if layout.is_scalar(&name) { vec![] } else { shape };
            tensors.push(Stored { name, shape, parts: vec![(parameter, transposed)] });
            return;
        };
        let at = *places.entry(name.clone()).or_insert(tensors.len());
        if at == tensors.len() {
            shape.insert(0, 0);
            tensors.push(Stored { name, shape, parts: vec![] });
        }
        tensors[at].shape[0] += 1;
        tensors[at].parts.push((parameter, transposed));
    });
    tensors
}

/// One file, or several with an index.
fn write_shards(tensors: Vec<Stored>, dir: &Path, shard_bytes: usize) -> Result<(), ModelError> {
    let total: usize = tensors.iter().map(Stored::bytes).sum();
    let mut shards: Vec<(usize, Vec<Stored>)> = vec![];
    for tensor in tensors {
        let size = tensor.bytes();
        match shards.last_mut().filter(|(filled, _)| filled + size <= shard_bytes) {
            Some((filled, shard)) => {
                *filled += size;
                shard.push(tensor);
            }
            None => shards.push((size, vec![tensor])),
        }
    }
    let count = shards.len();
    if count == 1 {
        let (_, tensors) = shards.remove(0);
        return write_stored(tensors, &dir.join("model.safetensors"));
    }
    let mut weight_map = serde_json::Map::new();
    for (index, (_, tensors)) in shards.into_iter().enumerate() {
        let name = format!("model-{:05}-of-{count:05}.safetensors", index + 1);
        weight_map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), name.as_str().into())));
        write_stored(tensors, &dir.join(name))?;
    }
    weight_map.sort_keys();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    write_file(&dir.join("model.safetensors.index.json"), format!("{index:#}\n").as_bytes())
}

/// `config.json` of what is saved: its type, and its class where it has a score head.
fn with_dtype(config: &[u8], model: &CausalLm, path: &Path) -> Result<Vec<u8>, ModelError> {
    let mut config: Value = serde_json::from_slice(config)
        .map_err(|e| ModelError::Json { file: path.display().to_string(), reason: e.to_string() })?;
    let name = match Storage::of_dtype(model.dtype()) {
        Some(Storage::Bf16) => "bfloat16",
        Some(Storage::F16) => "float16",
        _ => "float32",
    };
    let key = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    config[key] = name.into();
    // The weights are dense now, whatever they were read from.
    if let Some(keys) = config.as_object_mut() {
        keys.shift_remove("quantization_config");
    }
    if let Some(head) = &model.score {
        with_score_head(&mut config, model.spec().family, head);
    }
    Ok(format!("{config:#}\n").into_bytes())
}
