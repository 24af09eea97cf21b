//! From a path to a model: a Hugging Face directory or a GGUF file, of a family that a [`Registry`] knows.

use crate::family::Registry;
use crate::load::{Checkpoint, GgufModel, LoadOptions, Storage};
use crate::lora::projection_names;
use crate::memory::parameter_shapes;
use crate::quant::packed::StoredBlocks;
use crate::reward::refuse_reward_model;
use crate::{CausalLm, ModelError, ModelSpec, device};
use burn::tensor::Device;
use spo_data::gguf::is_gguf;
use std::collections::{BTreeMap, BTreeSet};
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

    /// The projections that a model's file stores in blocks, by module path: what is kept
    /// [`AsStored`](crate::load::Kept::AsStored). No weight is read.
    ///
    /// # Errors
    /// As [`spec`](Self::spec), or damaged weights.
    pub fn stored_blocks(&self, dir: &Path) -> Result<BTreeMap<String, StoredBlocks>, ModelError> {
        let matrices = |spec: &ModelSpec| {
            let projections = BTreeSet::from_iter(projection_names(spec));
            let shapes = parameter_shapes(spec).into_iter();
            let matrices = shapes.filter_map(|(path, shape)| Some((path, <[usize; 2]>::try_from(shape).ok()?)));
            let of_projection = move |path: &str| path.strip_suffix(".weight").map(|path| projections.contains(path));
            matrices.filter(move |(path, _)| of_projection(path) == Some(true))
        };
        let module = |path: &str| path.trim_end_matches(".weight").to_owned();
        if is_gguf(dir) {
            let model = GgufModel::open(self, dir)?;
            let found = |(path, shape): (String, _)| Some((module(&path), model.in_blocks(&path, shape)?));
            return Ok(matrices(model.spec()).filter_map(found).collect());
        }
        let (spec, checkpoint) = (self.spec(dir)?, Checkpoint::open(dir)?);
        let source = checkpoint.source(spec.layout, LoadOptions::default(), &device::cpu());
        let found = |(path, shape): (String, _)| Some((module(&path), source.in_blocks(&path, shape)?));
        Ok(matrices(&spec).filter_map(found).collect())
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
