//! Reward models: transformers' scores, the other ways in which heads are stored, what is refused.

use burn::tensor::{Tensor, TensorData};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use spo_data::Group;
use spo_model::export::{ModelFiles, SHARD_BYTES, save};
use spo_model::reward::{Pooling, RewardModel};
use spo_model::{CausalLm, ModelError, ModelSpec, device};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/reward").join(name)
}

fn open(dir: &Path, label: Option<usize>) -> Result<RewardModel, ModelError> {
    RewardModel::open(dir, None, label, &device::cpu())
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A copy of a fixture whose configuration and tensors are changed.
fn changed(
    name: &str,
    config: impl FnOnce(&mut Value),
    tensors: impl FnOnce(&mut HashMap<String, (Vec<usize>, Vec<f32>)>),
) -> TempDir {
    let (from, out) = (fixture(name), tempfile::tempdir().unwrap());
    let mut json = json_of(&from.join("config.json"));
    config(&mut json);
    std::fs::write(out.path().join("config.json"), json.to_string()).unwrap();
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let mut all = file.iter().map(|(name, view)| (name.to_string(), (view.shape().to_vec(), floats(view.data()))));
    let mut all: HashMap<_, _> = all.by_ref().collect();
    tensors(&mut all);
    write(&out.path().join("model.safetensors"), &all);
    out
}

fn write(path: &Path, tensors: &HashMap<String, (Vec<usize>, Vec<f32>)>) {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap();
        (name.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn one(model: &RewardModel, ids: &[u32]) -> f64 {
    model.score(&[Group { prompt: ids, answers: vec![&[]] }], 512, &mut |_| ())[0][0]
}

#[test]
fn scores_are_those_of_transformers() {
    for name in ["llama", "qwen3", "gpt-neox", "gemma2-3labels"] {
        let golden = json_of(&fixture(name).join("golden.json"));
        for case in golden["cases"].as_array().unwrap() {
            let ids: Vec<u32> = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            let expected: Vec<f64> = case["scores"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect();
            for (label, expected) in expected.iter().enumerate() {
                let model = open(&fixture(name), (expected.is_finite()).then_some(label)).unwrap();
                let found = one(&model, &ids);
                assert!((found - expected).abs() <= 1e-4, "{name}: {found}, expected {expected}");
            }
        }
    }
}

#[test]
fn answers_share_their_prompt_and_batches_change_nothing() {
    let model = open(&fixture("qwen3"), None).unwrap();
    let (prompt, a, b) = ([14, 47, 151], [149, 80, 112, 157], [9, 0]);
    let groups = [
        Group { prompt: &prompt, answers: vec![&a, &b] },
        Group { prompt: &[102], answers: vec![&[]] },
        Group { prompt: &[], answers: vec![&a] },
    ];
    let together = model.score(&groups, 512, &mut |_| ());
    let whole = |answer: &[u32]| one(&model, &[&prompt, answer].concat());
    let expected = [vec![whole(&a), whole(&b)], vec![one(&model, &[102])], vec![one(&model, &a)]];
    for (found, expected) in together.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 1e-6, "{found}, alone {expected}");
    }
    let mut done = vec![];
    assert_eq!(model.score(&groups, 1, &mut |groups| done.push(groups)).len(), 3);
    assert_eq!(done, [1, 2, 3]);
}

#[test]
fn padding_is_what_config_says() {
    let ids = [14, 132, 24, 58];
    let before = one(&open(&fixture("llama"), None).unwrap(), &ids[..3]);
    let last = one(&open(&fixture("llama"), None).unwrap(), &ids);
    // The end of the text is the padding token: the token before it is pooled.
    let eos = changed("llama", |config| config["pad_token_id"] = json!(58), |_| ());
    assert_eq!(one(&open(eos.path(), None).unwrap(), &ids), before);
    for pad in [Value::Null, json!(-1)] {
        let none = changed("llama", |config| config["pad_token_id"] = pad, |_| ());
        assert_eq!(open(none.path(), None).unwrap().model.score.unwrap().pooling, Pooling::Last);
        assert_eq!(one(&open(none.path(), None).unwrap(), &ids), last);
    }
    // What transformers takes for granted of a class.
    let gemma =
        changed("gemma2-3labels", |config| drop(config.as_object_mut().unwrap().remove("pad_token_id")), |_| ());
    assert_eq!(open(gemma.path(), Some(1)).unwrap().model.score.unwrap().pooling, Pooling::BeforePads(0));
    let wrong = changed("llama", |config| config["pad_token_id"] = json!("</s>"), |_| ());
    assert!(open(wrong.path(), None).unwrap_err().to_string().contains("pad_token_id"));
}

#[test]
fn heads_of_openrlhf() {
    let ids = [14, 132, 24, 0];
    let rename = |tensors: &mut HashMap<String, _>, name: &str| {
        let head = tensors.remove("score.weight").unwrap();
        tensors.insert(name.into(), head);
    };
    let unpadded = changed("llama", |config| config["pad_token_id"] = Value::Null, |_| ());
    let expected = one(&open(unpadded.path(), None).unwrap(), &ids);
    let older =
        changed("llama", |config| config["architectures"] = json!(["RewardModel"]), |t| rename(t, "value_head.weight"));
    assert_eq!(one(&open(older.path(), None).unwrap(), &ids), expected);
    let unnamed = changed("llama", |config| config["architectures"] = json!(["RewardModel"]), |_| ());
    assert_eq!(one(&open(unnamed.path(), None).unwrap(), &ids), expected);
    let set = |config: &mut Value| {
        (config["value_head_prefix"], config["mean"], config["std"]) = (json!("reward"), json!(0.5), json!(2.0));
    };
    let named = changed("llama", set, |tensors| rename(tensors, "reward.weight"));
    assert_eq!(one(&open(named.path(), None).unwrap(), &ids), (expected - 0.5) / 2.0);
}

#[test]
fn a_value_head_beside_a_causal_language_model() {
    let out = changed(
        "llama",
        |config| config["architectures"] = json!(["LlamaForCausalLM"]),
        |tensors| {
            tensors.remove("score.weight").unwrap();
            let head = tensors["model.embed_tokens.weight"].clone();
            tensors.insert("lm_head.weight".into(), head);
        },
    );
    let error = open(out.path(), None).unwrap_err().to_string();
    assert!(error.contains("no score head"), "{error}");
    let weight: Vec<f32> = (0..48).map(|i| (i as f32 * 0.7).sin()).collect();
    let head = HashMap::from([
        ("v_head.summary.weight".to_string(), (vec![1, 48], weight.clone())),
        ("v_head.summary.bias".to_string(), (vec![1], vec![0.25])),
    ]);
    write(&out.path().join("value_head.safetensors"), &head);
    let model = open(out.path(), None).unwrap();
    let ids = [14, 132, 24, 0];
    let hidden = model.model.packed_for_rewards(&[Group { prompt: &ids, answers: vec![&[]] }]);
    let inputs = spo_model::decoder::PackedInputs::new(&hidden, model.model.spec(), &device::cpu());
    let weight = Tensor::<2>::from_data(TensorData::new(weight, [48, 1]), &device::cpu());
    let expected = model.model.hidden(&inputs).matmul(weight).into_scalar::<f32>() + 0.25;
    assert!((one(&model, &ids) - f64::from(expected)).abs() < 1e-6);
    // It still is a language model.
    CausalLm::from_dir(out.path(), None, &device::cpu()).unwrap();
}

#[test]
fn what_is_refused() {
    let error = |result: Result<RewardModel, ModelError>| result.map(|_| ()).unwrap_err();
    let labels = error(open(&fixture("gemma2-3labels"), None)).to_string();
    assert!(labels.contains("3 labels: say which"), "{labels}");
    let outside = error(open(&fixture("gemma2-3labels"), Some(3))).to_string();
    assert!(outside.contains("no label 3"), "{outside}");
    for encoder in ["deberta-v2", "bart", "bert"] {
        let dir = changed("llama", |config| config["model_type"] = json!(encoder), |_| ());
        let found = error(open(dir.path(), None)).to_string();
        assert!(found.contains(encoder) && found.contains("external scorer"), "{found}");
    }
    let shape = changed("llama", |config| drop(config.as_object_mut().unwrap().remove("id2label")), |_| ());
    let shape = error(open(shape.path(), None)).to_string();
    assert!(shape.contains("score.weight") && shape.contains("[2, 48]"), "{shape}");
    let missing = changed("llama", |_| (), |tensors| drop(tensors.remove("score.weight")));
    assert!(error(open(missing.path(), None)).to_string().contains("score.weight"));
    let language = CausalLm::from_dir(&fixture("llama"), None, &device::cpu()).unwrap_err();
    assert!(language.to_string().contains("a reward model") && language.hint().is_some(), "{language}");
    let pickle = changed(
        "llama",
        |config| config["architectures"] = json!(["LlamaForCausalLM"]),
        |tensors| {
            drop(tensors.remove("score.weight"));
        },
    );
    std::fs::write(pickle.path().join("value_head.bin"), b"").unwrap();
    assert!(matches!(error(open(pickle.path(), None)), ModelError::Pickle { .. }));
}

#[test]
fn a_saved_reward_model_comes_back() {
    for name in ["llama", "gemma2-3labels"] {
        let model = open(&fixture(name), Some(0)).unwrap().model;
        let out = tempfile::tempdir().unwrap();
        save(&model, &ModelFiles::from_dir(&fixture(name)).unwrap(), out.path(), SHARD_BYTES).unwrap();
        let read = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
        let (before, after) = (read(&fixture(name)), read(out.path()));
        let (before, after) = (SafeTensors::deserialize(&before).unwrap(), SafeTensors::deserialize(&after).unwrap());
        assert_eq!(before.len(), after.len());
        for (tensor, view) in before.iter() {
            assert_eq!(view.data(), after.tensor(tensor).unwrap().data(), "{name}: {tensor}");
        }
        let ids = [14, 132, 24];
        assert_eq!(one(&open(&fixture(name), Some(0)).unwrap(), &ids), one(&open(out.path(), Some(0)).unwrap(), &ids));
    }
    let spec = ModelSpec::from_path(&fixture("llama")).unwrap();
    let spec = ModelSpec { tied: true, ..spec };
    let fresh = CausalLm::random(&spec, 3, &device::cpu()).with_score_head(3, Pooling::BeforePads(7));
    let (out, config) =
        (tempfile::tempdir().unwrap(), br#"{"model_type":"llama","architectures":["LlamaForCausalLM"]}"#);
    let files = ModelFiles { files: vec![("config.json".into(), config.to_vec())] };
    save(&fresh, &files, out.path(), SHARD_BYTES).unwrap();
    let config = json_of(&out.path().join("config.json"));
    assert_eq!(config["architectures"], json!(["LlamaForSequenceClassification"]));
    let named = [&config["num_labels"], &config["id2label"], &config["label2id"], &config["pad_token_id"]];
    assert_eq!(named, [&json!(1), &json!({"0": "LABEL_0"}), &json!({"LABEL_0": 0}), &json!(7)]);
}

/// Families that transformers has no class with a score head for; their models are read back here alone.
const WITHOUT_CLASS: [&str; 6] = ["apertus", "cohere2", "gemma4", "granite", "granitemoe", "olmoe"];

/// The tiny model of every family with a fresh head, saved, against what `AutoModelForSequenceClassification` makes of it.
/// `SPO_REWARD_MODELS=DIR` also leaves the models there, with rows for `tools/parity/reward.py scores`.
#[test]
fn transformers_reads_what_is_saved() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let golden = json_of(&root.join("reward/exported.json"));
    let (kept, temporary) = (std::env::var_os("SPO_REWARD_MODELS"), tempfile::tempdir().unwrap());
    let out = kept.map_or_else(|| temporary.path().to_path_buf(), PathBuf::from);
    std::fs::create_dir_all(&out).unwrap();
    let mut dirs: Vec<PathBuf> =
        std::fs::read_dir(root.join("families")).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    // The last row ends with padding in most of the models.
    let rows: [(&[u32], [&[u32]; 2]); 3] =
        [(&[14, 47, 151], [&[149, 80, 112, 157], &[9]]), (&[102], [&[7, 7, 2], &[2]]), (&[5, 6], [&[8, 0], &[8, 1]])];
    let lines = rows.map(|(prompt, [chosen, rejected])| {
        json!({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}).to_string()
    });
    std::fs::write(out.join("rows.jsonl"), lines.join("\n")).unwrap();
    for dir in dirs {
        let (name, files) = (dir.file_name().unwrap().to_str().unwrap(), ModelFiles::from_dir(&dir).unwrap());
        let model = CausalLm::from_dir(&dir, None, &device::cpu()).unwrap();
        let mut model = model.without_lm_head().with_score_head(3, files.pooling().unwrap());
        // Larger than a fresh one, so that a difference shows.
        let head = model.score.as_mut().unwrap();
        head.weight = burn::module::Param::from_tensor(head.weight.val() * 10.0);
        save(&model, &files, &out.join(name), SHARD_BYTES).unwrap();
        let saved = open(&out.join(name), None).unwrap();
        let groups = rows.map(|(prompt, answers)| Group { prompt, answers: answers.to_vec() });
        let found = saved.score(&groups, 512, &mut |_| ()).concat();
        let expected: Vec<f64> = golden[name].as_array().into_iter().flatten().map(|v| v.as_f64().unwrap()).collect();
        if std::env::var_os("SPO_REWARD_MODELS").is_none() && !WITHOUT_CLASS.contains(&name) {
            assert_eq!(found.len(), expected.len(), "{name}");
        }
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= 1e-4, "{name}: {found}, expected {expected}");
        }
    }
}
