//! A Hugging Face model directory: `config.json`, `model.safetensors`, tokenizer files.

use super::{Stored, create_dir, require_whole, write_file, write_stored};
use crate::load::{GgufModel, Storage};
use crate::parameters::for_each;
use crate::reward::config_with_score_head;
use crate::{CausalLm, ModelError, family};
use serde_json::{Value, json};
use spo_data::Tokenizer;
use spo_data::gguf::is_gguf;
use std::collections::BTreeMap;
use std::path::Path;

/// What stands beside the weights in a model directory, copied unchanged on export.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelFiles {
    /// Name and content of each file, `config.json` among them.
    pub files: Vec<(String, Vec<u8>)>,
}

const GENERATION: &str = "generation_config.json";

/// Files that belong to a model besides its weights.
const COPIED: &[&str] = &[
    "config.json",
    GENERATION,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

impl ModelFiles {
    /// All of them by name.
    pub fn by_name(&self) -> BTreeMap<String, Vec<u8>> {
        self.files.iter().cloned().collect()
    }

    /// The content of the file of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(file, _)| file == name).map(|(_, bytes)| bytes.as_slice())
    }

    /// Those of a model: of a GGUF file they are made, of a directory read as by [`from_dir`](Self::from_dir).
    ///
    /// # Errors
    /// A file that exists and cannot be read, or a GGUF file that holds what is not known here.
    pub fn from_path(path: &Path) -> Result<Self, ModelError> {
        if is_gguf(path) { GgufModel::open(&family::Registry::builtin(), path)?.files() } else { Self::from_dir(path) }
    }

    /// Reads those of a model directory that are there.
    ///
    /// # Errors
    /// A file that exists and cannot be read.
    pub fn from_dir(dir: &Path) -> Result<Self, ModelError> {
        let named = spo_data::template_files(dir)?;
        let names = COPIED.iter().map(|name| name.to_string()).chain(named);
        let read = names.map(|name| (dir.join(&name), name)).filter(|(path, _)| path.exists()).map(|(path, name)| {
            let bytes = std::fs::read(&path).map_err(|e| ModelError::io(&path, e))?;
            Ok((name, bytes))
        });
        Ok(Self { files: read.collect::<Result<_, ModelError>>()? })
    }

    /// With a `generation_config.json` that names every token at which generation here stops: the tokenizer's EOS, and
    /// the one that the chat template writes after an answer. As they are where the files say so already.
    ///
    /// # Errors
    /// The tokenizer or a configuration is broken.
    pub fn with_ends(mut self) -> Result<Self, ModelError> {
        if ["tokenizer.json", "vocab.json"].iter().all(|name| self.get(name).is_none()) {
            return Ok(self);
        }
        let tokenizer = Tokenizer::from_files(self.by_name())?;
        let json = |name: &str| -> Result<Value, ModelError> {
            let parsed = self.get(name).map_or(Ok(Value::Null), serde_json::from_slice);
            parsed.map_err(|e| ModelError::Json { file: name.into(), reason: e.to_string() })
        };
        let (mut generation, config) = (json(GENERATION)?, json("config.json")?);
        let said = if generation.is_null() { &config } else { &generation };
        let said = family::token_ids(&said["eos_token_id"]).unwrap_or_default();
        if tokenizer.terminators().iter().all(|id| said.contains(id)) {
            return Ok(self);
        }
        if generation.is_null() {
            let ids = ["bos_token_id", "pad_token_id"].map(|key| (key.to_string(), config[key].clone()));
            generation = Value::Object(ids.into_iter().filter(|(_, id)| !id.is_null()).collect());
        }
        generation["eos_token_id"] = json!(tokenizer.terminators());
        self.files.retain(|(name, _)| name != GENERATION);
        self.files.push((GENERATION.into(), format!("{generation:#}\n").into_bytes()));
        Ok(self)
    }
}

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
        config_with_score_head(&mut config, model.spec().family, head);
    }
    Ok(format!("{config:#}\n").into_bytes())
}
