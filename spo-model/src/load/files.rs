//! The files that stand beside a model's weights.

use super::GgufModel;
use crate::{ModelError, family};
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
