//! Adapter files that are not whole, or not named as PEFT names them: each loads as it should or says in its own words what it is.

use crate::common::{load, root, tensors};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use spo_model::lora::load_adapter;
use spo_model::{CausalLm, ModelError, parameters};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

const LAYER: &str = "base_model.model.model.layers.1.mlp.up_proj";

fn base() -> PathBuf {
    root().join("fixtures/trl/llama-tiny-policy")
}

/// Loads the adapter of the fixtures, with its configuration and tensors changed, on a model.
fn adapted_on(
    model: CausalLm,
    config: impl FnOnce(&mut Value),
    change: impl FnOnce(&mut Tensors),
) -> Result<CausalLm, ModelError> {
    let (from, dir) = (root().join("fixtures/trl/llama-tiny-lora"), tempfile::tempdir().unwrap());
    let mut json: Value = serde_json::from_slice(&std::fs::read(from.join("adapter_config.json")).unwrap()).unwrap();
    config(&mut json);
    std::fs::write(dir.path().join("adapter_config.json"), json.to_string()).unwrap();
    let mut tensors = tensors(&from);
    change(&mut tensors);
    let path = dir.path().join("adapter_model.safetensors");
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, &path).unwrap();
    load_adapter(model, dir.path()).map(|(model, _)| model)
}

fn adapted(config: impl FnOnce(&mut Value), change: impl FnOnce(&mut Tensors)) -> Result<CausalLm, ModelError> {
    adapted_on(load(&base()), config, change)
}

/// The file with other names.
fn renamed(tensors: &mut Tensors, name: impl Fn(&str) -> String) {
    *tensors = std::mem::take(tensors).into_iter().map(|(old, tensor)| (name(&old), tensor)).collect();
}

fn hash(model: &CausalLm) -> String {
    parameters::hash(model, |_| true)
}

#[track_caller]
fn refused(found: Result<CausalLm, ModelError>, words: &[&str]) {
    let error = found.unwrap_err();
    let text = format!("{error}; {}", error.hint().unwrap_or_default());
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    assert!(!text.contains("made for another model"), "{text}");
}

#[test]
fn an_adapter_is_whole() {
    let halves = |tensors: &mut Tensors| tensors.retain(|name, _| !name.contains("layers.1."));
    refused(adapted(|_| (), halves), &["14 tensor(s) missing", "layers.1.", "adapter_config.json asks for"]);
    refused(adapted(|_| (), |tensors| tensors.clear()), &["holds no tensor", "no effect"]);
    let one = |tensors: &mut Tensors| drop(tensors.remove(&format!("{LAYER}.lora_B.weight")));
    refused(adapted(|_| (), one), &["1 tensor(s) missing", &format!("{LAYER}.lora_B.weight")]);
    let head = |config: &mut Value| config["modules_to_save"] = json!(["lm_head"]);
    refused(adapted(head, |_| ()), &["1 tensor(s) missing", "base_model.model.lm_head.weight"]);
    let score = |config: &mut Value| config["modules_to_save"] = json!(["score"]);
    refused(adapted(score, |_| ()), &["modules_to_save", "`score`"]);
    let dora = |config: &mut Value| config["use_dora"] = true.into();
    refused(adapted(dora, |_| ()), &["14 tensor(s) missing", "lora_magnitude_vector"]);
    // What the configuration leaves out need not be there.
    adapted(|config| config["layers_to_transform"] = json!([0]), halves).unwrap();
    adapted(|config| config["exclude_modules"] = json!(".*layers\\.1\\..*"), halves).unwrap();
    let more = |config: &mut Value| {
        config["target_modules"] =
            json!(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "query"])
    };
    adapted(more, |_| ()).unwrap();
    refused(adapted(|config| config["target_modules"] = json!(["query"]), |_| ()), &["target_modules"]);
}

#[test]
fn tensors_may_be_named_otherwise() {
    let plain = hash(&adapted(|_| (), |_| ()).unwrap());
    let default = |name: &str| name.replace(".weight", ".default.weight");
    assert_eq!(hash(&adapted(|_| (), |tensors| renamed(tensors, default)).unwrap()), plain);
    let bare = |name: &str| name.trim_start_matches("base_model.model.").to_string();
    assert_eq!(hash(&adapted(|_| (), |tensors| renamed(tensors, bare)).unwrap()), plain);
    let saved = |name: &str, config: &str| {
        let found = adapted(
            |json| json["modules_to_save"] = json!([config]),
            |tensors| drop(tensors.insert(name.into(), (vec![64], vec![0; 256]))),
        );
        hash(&found.unwrap())
    };
    let expected = saved("base_model.model.model.norm.weight", "model.norm");
    assert_eq!(saved("base_model.model.model.norm.modules_to_save.default.weight", "model.norm"), expected);
}

#[test]
fn what_is_not_supported_is_named() {
    let with = |name: &str, shape: [usize; 2]| {
        let bytes = vec![0; shape[0] * shape[1] * 4];
        adapted(|_| (), |tensors| drop(tensors.insert(format!("base_model.model.{name}"), (shape.to_vec(), bytes))))
    };
    refused(with("model.embed_tokens.lora_embedding_A", [4, 1024]), &["lora_embedding_A of model.embed_tokens"]);
    refused(with("lm_head.lora_A.weight", [4, 64]), &["LoRA on lm_head is not supported"]);
    let two = |tensors: &mut Tensors| {
        let tensor = tensors[&format!("{LAYER}.lora_A.weight")].clone();
        tensors.insert(format!("{LAYER}.lora_A.other.weight"), tensor);
    };
    refused(adapted(|_| (), two), &["two adapters", "lora_A.other.weight"]);
    let other = with("model.layers.9.mlp.up_proj.lora_A.weight", [4, 64]).unwrap_err();
    assert!(other.hint().unwrap().contains("another model"), "{other}");

    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(
        root().join("fixtures/trl/llama-tiny-lora/adapter_config.json"),
        dir.path().join("adapter_config.json"),
    )
    .unwrap();
    let error = |dir: &Path| load_adapter(load(&base()), dir).unwrap_err();
    assert!(
        error(dir.path()).to_string().contains("is not an adapter directory: adapter_model.safetensors is missing")
    );
    std::fs::write(dir.path().join("adapter_model.bin"), b"PK\x03\x04").unwrap();
    let found = error(dir.path());
    assert!(found.to_string().contains("pickle") && found.to_string().contains("adapter_model.bin"), "{found}");
    std::fs::write(dir.path().join("adapter_model.safetensors"), b"version https://git-lfs.github.com/spec/v1\n")
        .unwrap();
    assert!(error(dir.path()).to_string().contains("adapter_model.safetensors is a Git LFS pointer"));
}

/// PEFT writes both tables of a tied model where the vocabulary grew.
#[test]
fn tables_of_a_tied_model_are_the_same() {
    let tied = || {
        let mut config: Value = serde_json::from_slice(&std::fs::read(base().join("config.json")).unwrap()).unwrap();
        config["tie_word_embeddings"] = true.into();
        let spec = spo_model::ModelSpec::from_json(&config.to_string()).unwrap();
        CausalLm::random(&spec, 0, &spo_model::device::cpu())
    };
    let (head, table) = ("base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight");
    let values = |value: f32| (vec![1024, 64], value.to_le_bytes().repeat(1024 * 64));
    let with = |saved: Value, tables: &[(&str, f32)]| {
        adapted_on(
            tied(),
            |config| config["modules_to_save"] = saved,
            |tensors| tensors.extend(tables.iter().map(|(name, value)| (name.to_string(), values(*value)))),
        )
    };
    let both = with(Value::Null, &[(head, 0.5), (table, 0.5)]).unwrap();
    assert_eq!(hash(&both), hash(&with(json!(["lm_head", "embed_tokens"]), &[(head, 0.5), (table, 0.5)]).unwrap()));
    assert_eq!(hash(&both), hash(&with(Value::Null, &[(table, 0.5)]).unwrap()));
    refused(with(Value::Null, &[(head, 0.5), (table, 0.25)]), &["head and embedding differ", "tie_word_embeddings"]);
    refused(with(Value::Null, &[(head, 0.5)]), &["a head of its own"]);
    refused(with(json!(["embed_tokens"]), &[(table, 0.5)]), &["an embedding of its own"]);
}
