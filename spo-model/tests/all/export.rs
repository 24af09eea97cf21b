//! Written models read back from Hugging Face directories.

use crate::common::{load, root, tensors, with_tokenizer};
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

/// Readers stop where generation here stops: at EOS and at what the chat template writes after an answer.
#[test]
fn written_models_name_every_end_of_an_answer() {
    let dir = root().join("fixtures/trl/llama-tiny-policy");
    let whole = ModelFiles::from_dir(&dir).unwrap();
    assert_eq!(whole.clone().with_ends().unwrap(), whole, "EOS and the template's end are the same token");
    let stories = ModelFiles::from_dir(&root().join("spo-cli/assets/stories260K")).unwrap();
    assert_eq!(stories.clone().with_ends().unwrap(), stories, "without a template");

    let mut base = whole;
    for (name, bytes) in &mut base.files {
        let mut json: Value = serde_json::from_slice(bytes).unwrap_or_default();
        match name.as_str() {
            "tokenizer_config.json" => json["eos_token"] = "<|endoftext|>".into(),
            "config.json" => (json["eos_token_id"], json["pad_token_id"]) = (0.into(), 3.into()),
            _ => continue,
        }
        *bytes = json.to_string().into_bytes();
    }
    base.files.retain(|(name, _)| name != "generation_config.json");
    let out = tempfile::tempdir().unwrap();
    save(&load(&dir), &base.clone().with_ends().unwrap(), out.path(), SHARD_BYTES).unwrap();
    let written = |dir: &std::path::Path| -> Value {
        serde_json::from_slice(&std::fs::read(dir.join("generation_config.json")).unwrap()).unwrap()
    };
    let found = written(out.path());
    assert_eq!((&found["eos_token_id"], &found["pad_token_id"]), (&serde_json::json!([0, 2]), &3.into()));
    // What is there stays, and what says all is not written anew.
    base.files.push(("generation_config.json".into(), br#"{"temperature": 0.6, "eos_token_id": 3}"#.to_vec()));
    let more = base.with_ends().unwrap();
    let found: Value = serde_json::from_slice(more.get("generation_config.json").unwrap()).unwrap();
    assert_eq!(found, serde_json::json!({"temperature": 0.6, "eos_token_id": [0, 2, 3]}));
    assert_eq!(more.clone().with_ends().unwrap(), more);
}
