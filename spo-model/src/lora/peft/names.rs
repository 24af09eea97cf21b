//! The tensors of an adapter's file: under which names they stand there, and which have to.

use super::config::AdapterConfig;
use crate::layout::Layout;
use crate::load::Checkpoint;
use crate::lora::is_adapter;
use crate::lora::targets::module_path;
use crate::parameters::for_each;
use crate::{CausalLm, ModelError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What PEFT wraps a model in.
const PREFIX: &str = "base_model.model.";
/// Parts of PEFT's names behind which some programs leave the adapter's own name.
const PARTS: [&str; 3] = ["lora_A", "lora_B", MAGNITUDE];
const MAGNITUDE: &str = "lora_magnitude_vector";

/// PEFT's name of the tensor at a module path such as `layers.0.mlp.up_proj.lora.a`.
pub(super) fn peft_name(layout: &Layout, path: &str) -> String {
    let path = path
        .replace(".lora.a", ".lora_A.weight")
        .replace(".lora.b", ".lora_B.weight")
        .replace(".lora.magnitude", ".lora_magnitude_vector");
    format!("{PREFIX}{}", layout.name(&path))
}

/// As [`peft_name`], from what a file may say instead: with the adapter's name in it, as in `lora_A.default.weight` or
/// `lm_head.modules_to_save.default.weight`, or without what PEFT wraps the model in.
fn canonical(name: &str) -> String {
    let mut parts: Vec<&str> = name.strip_prefix(PREFIX).unwrap_or(name).split('.').collect();
    if let Some(at) = parts.iter().position(|part| PARTS.contains(part)) {
        let kept = if parts[at] == MAGNITUDE { 0 } else { 1 };
        let end = parts.len().saturating_sub(kept).max(at + 1);
        parts.drain(at + 1..end);
    }
    if let Some(at) = parts.iter().position(|part| *part == "modules_to_save") {
        parts.drain(at..parts.len().min(at + 2));
    }
    format!("{PREFIX}{}", parts.join("."))
}

/// The tensors of an adapter's file by PEFT's names of them.
pub(super) struct Tensors {
    path: PathBuf,
    /// PEFT's name to that of the file.
    names: BTreeMap<String, String>,
    unused: BTreeSet<String>,
}

impl Tensors {
    /// Those of an opened file.
    ///
    /// # Errors
    /// There are none, or two of them mean the same.
    pub fn of(checkpoint: &Checkpoint, path: &Path) -> Result<Self, ModelError> {
        let refuse = |reason: String| Err(ModelError::Adapter { file: path.display().to_string(), reason });
        let mut names = BTreeMap::new();
        for name in checkpoint.names() {
            if let Some(other) = names.insert(canonical(&name), name.clone()) {
                return refuse(format!("`{other}` and `{name}` are tensors of two adapters; one is expected"));
            }
        }
        if names.is_empty() {
            return refuse("the file holds no tensor: the adapter would have no effect".into());
        }
        let unused = names.keys().cloned().collect();
        Ok(Self { path: path.into(), names, unused })
    }

    /// The file's name of the tensor that PEFT calls `name`, which counts as used from now on.
    pub fn take(&mut self, name: &str) -> Option<&str> {
        self.unused.remove(name);
        self.names.get(name).map(String::as_str)
    }

    /// Whether the file has a tensor that PEFT calls so.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Takes the head of a model that shares the embedding's table, where the file has it beside that table.
    ///
    /// # Errors
    /// It is another than the table, or stands alone: the model has no place for it.
    pub fn take_tied_head(
        &mut self,
        checkpoint: &Checkpoint,
        config: &AdapterConfig,
        layout: &Layout,
    ) -> Result<(), ModelError> {
        let [head, table] = ["lm_head", "embed_tokens"].map(|path| peft_name(layout, &format!("{path}.weight")));
        let refuse = |what: &str| {
            let reason =
                format!("{what}, but the head of this model shares the embedding's table (tie_word_embeddings)");
            Err(ModelError::Adapter { file: self.path.display().to_string(), reason })
        };
        match (self.names.get(&head), self.names.get(&table)) {
            (Some(own), Some(shared)) if !checkpoint.equal(own, shared)? => refuse("head and embedding differ"),
            (Some(_), None) => refuse("the adapter has a head of its own"),
            (None, Some(_)) if config.saves(&module_path(layout, "embed_tokens")) => {
                refuse("the adapter has an embedding of its own (modules_to_save)")
            }
            _ => {
                self.unused.remove(&head);
                Ok(())
            }
        }
    }

    /// Refuses an adapter that lacks tensors of the layers and modules that its configuration names, or holds others.
    /// All that is left has no place in the model.
    ///
    /// # Errors
    /// [`ModelError::AdapterLacks`], or what the other tensors are.
    pub fn finish(self, config: &AdapterConfig, model: &CausalLm) -> Result<(), ModelError> {
        let missing: Vec<String> = expected(config, model)?.into_iter().filter(|name| !self.has(name)).collect();
        match (self.unused.first(), missing.is_empty()) {
            (Some(name), _) => Err(self.explain(name, model)),
            (None, true) => Ok(()),
            (None, false) => Err(ModelError::AdapterLacks { path: self.path, names: missing }),
        }
    }

    /// What a tensor is that has no place.
    fn explain(&self, name: &str, model: &CausalLm) -> ModelError {
        let refuse = |reason: String| ModelError::Adapter { file: self.path.display().to_string(), reason };
        let module = |part: &str| name.strip_prefix(PREFIX)?.split_once(part).map(|(module, _)| module.to_string());
        if let Some(module) = module(".lora_embedding_") {
            return refuse(format!("LoRA on embeddings (lora_embedding_A of {module}) is not supported"));
        }
        let layout = model.spec().layout;
        let others = ["lm_head", "embed_tokens", "embed_positions"].map(|path| module_path(layout, path));
        if let Some(module) = module(".lora_").filter(|module| others.contains(module)) {
            return refuse(format!(
                "LoRA on {module} is not supported; it goes on linear layers of the decoder's blocks"
            ));
        }
        let names = self.unused.iter().map(|name| self.names[name].clone()).collect();
        ModelError::UnexpectedTensors { path: self.path.clone(), names }
    }
}

/// PEFT's names of the tensors that an adapter's configuration asks for.
fn expected(config: &AdapterConfig, model: &CausalLm) -> Result<Vec<String>, ModelError> {
    let spec = model.spec();
    let parts: &[&str] = if config.spec.dora { &["a", "b", "magnitude"] } else { &["a", "b"] };
    let mut names: Vec<String> = config
        .adapted(spec)?
        .into_iter()
        .flat_map(|path| parts.iter().map(move |part| peft_name(spec.layout, &format!("{path}.lora.{part}"))))
        .collect();
    for name in &config.modules_to_save {
        let before = names.len();
        for_each(model, "", |parameter| {
            let path = spec.layout.name(&parameter.path);
            let is_of = path.rsplit_once('.').is_some_and(|(module, _)| module.ends_with(name.as_str()));
            if is_of && !is_adapter(&parameter.path) {
                names.push(format!("{PREFIX}{path}"));
            }
        });
        // The head of a tied model is no parameter of its own.
        if spec.tied && module_path(spec.layout, "lm_head").ends_with(name.as_str()) {
            names.push(peft_name(spec.layout, "lm_head.weight"));
        }
        if names.len() == before {
            return Err(config.refuse(format!("modules_to_save: no module of the model is called `{name}`")));
        }
    }
    Ok(names)
}
