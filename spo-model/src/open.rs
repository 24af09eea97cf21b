//! From a path to a model: a Hugging Face directory or a GGUF file, of a family that a [`Registry`] knows.

use crate::family::Registry;
use crate::load::{Checkpoint, GgufModel, LoadOptions, Storage};
use crate::reward::refuse_reward_model;
use crate::{CausalLm, ModelError, ModelSpec};
use burn::tensor::Device;
use spo_data::gguf::is_gguf;
use std::path::Path;

impl Registry {
    /// Loads a model: a Hugging Face directory or a GGUF file.
    ///
    /// # Errors
    /// Missing files, an unsupported architecture, damaged weights, missing, unexpected or wrongly
    /// shaped tensors: each named. A reward model, which [`open_reward`](Self::open_reward) loads.
    pub fn open(&self, dir: &Path, options: LoadOptions, device: &Device) -> Result<CausalLm, ModelError> {
        if is_gguf(dir) {
            return GgufModel::open(self, dir)?.load(options, device);
        }
        refuse_reward_model(dir)?;
        CausalLm::from_checkpoint(&self.spec(dir)?, &Checkpoint::open(dir)?, options, device)
    }
}

impl ModelSpec {
    /// Reads the shape of a model: `config.json` of a directory, or the metadata of a GGUF file.
    ///
    /// # Errors
    /// A missing directory or file, unusable JSON, an unknown or refused `model_type`, a missing or inconsistent key; a
    /// GGUF file that is damaged or has keys that are not known here.
    pub fn from_path(path: &Path) -> Result<Self, ModelError> {
        Registry::builtin().spec(path)
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
        Registry::builtin().open(dir, options, device)
    }
}
