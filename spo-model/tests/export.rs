//! Written models read back from Hugging Face directories.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{load, root, tensors, with_tokenizer};
use serde_json::Value;
use spo_model::export::{ModelFiles, SHARD_BYTES, save};
use spo_model::load::Storage;
use spo_model::{CausalLm, device, parameters};
use std::path::PathBuf;

/// A model of each family, with its directory.
fn models() -> Vec<PathBuf> {
    let mut all = with_tokenizer();
    all.extend(["mistral-window", "qwen2", "llama3-rope-tied"].map(|name| root().join("fixtures/families").join(name)));
    all
}

fn hash(model: &CausalLm) -> String {
    parameters::hash(model, |_| true)
}

#[test]
fn a_round_trip_keeps_every_bit() {
    for dir in models() {
        let (model, files) = (load(&dir), ModelFiles::from_dir(&dir).unwrap());
        for shard_bytes in [SHARD_BYTES, 40_000, 1] {
            let out = tempfile::tempdir().unwrap();
            save(&model, &files, out.path(), shard_bytes).unwrap();
            let (mut before, after) = (tensors(&dir), tensors(out.path()));
            before.retain(|name, _| after.contains_key(name) || !name.ends_with("lm_head.weight"));
            assert_eq!(before, after, "{}", dir.display());
            let index = out.path().join("model.safetensors.index.json");
            assert_eq!(index.exists(), shard_bytes != SHARD_BYTES);
            assert_eq!(hash(&model), hash(&load(out.path())));
            for (name, bytes) in files.files.iter().filter(|(name, _)| name != "config.json") {
                assert_eq!(*bytes, std::fs::read(out.path().join(name)).unwrap(), "{name}");
            }
        }
    }
}

#[test]
fn another_type_is_rounded_once() {
    let dir = root().join("spo-cli/assets/stories260K");
    let (model, files) = (load(&dir), ModelFiles::from_dir(&dir).unwrap());
    for storage in [Storage::Bf16, Storage::F16] {
        let out = tempfile::tempdir().unwrap();
        save(&model.clone().stored_as(storage), &files, out.path(), SHARD_BYTES).unwrap();
        let rounded = CausalLm::from_dir(&dir, Some(storage), &device::cpu()).unwrap();
        assert_eq!(hash(&load(out.path())), hash(&rounded));
        let config: Value = serde_json::from_slice(&std::fs::read(out.path().join("config.json")).unwrap()).unwrap();
        let key = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
        assert_eq!(config[key], if storage == Storage::Bf16 { "bfloat16" } else { "float16" });
    }
}
