//! Models that were exported and come back out of their files alone.

use super::{FAMILIES, edit, family, json, longrope, random};
use crate::common::{load, root, with_tokenizer};
use burn::tensor::Tensor;
use serde_json::Value;
use spo_data::Tokenizer;
use spo_model::export::{GgufType, ModelFiles, SHARD_BYTES, save, save_gguf};
use spo_model::family::Registry;
use spo_model::load::{GgufModel, LoadOptions};
use spo_model::spec::{NormKind, Rope};
use spo_model::{CausalLm, ModelSpec, device, parameters};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Texts of the tests: those of the goldens, pairs, and odd ones.
fn texts() -> Vec<String> {
    let golden = json(&root().join("fixtures/tokenizers/golden_ids.json"));
    let mut texts: Vec<String> =
        ["", " ", "  two  spaces", "line\nbreaks\n\n\tand tabs", "1234567 it's ÄÖÜ, 数字 🙂"].map(String::from).into();
    texts.extend(
        golden
            .as_object()
            .unwrap()
            .values()
            .flat_map(|one| ["text", "text2"].map(|key| one[key].as_str().unwrap().to_owned())),
    );
    for name in ["llama", "qwen3"] {
        let golden = json(&root().join(format!("fixtures/trl/tokenizer-{name}.golden.json")));
        texts.extend(golden.as_array().unwrap().iter().map(|case| case["text"].as_str().unwrap().to_owned()));
    }
    let stories = json(&root().join("spo-cli/assets/stories260K/golden.json"));
    let cases = stories["tokenize"].as_array().unwrap().iter();
    texts.extend(cases.map(|case| case["text"].as_str().unwrap().to_owned()));
    texts
}

fn weights(model: &CausalLm) -> BTreeMap<String, Vec<f32>> {
    let mut all = BTreeMap::new();
    parameters::for_each(model, "", |p| {
        all.insert(p.path, p.value.into_data().iter::<f32>().collect());
    });
    all
}

/// A model of these files, its biases and norms told apart.
fn told_apart(config: &Value) -> CausalLm {
    let mut index = 0.0;
    parameters::replace(random(config), "", |parameter| {
        index += 0.1;
        let ramp = Tensor::arange(0..parameter.value.dims()[0] as i64, &parameter.value.device());
        parameter.value + (ramp.float() * 0.737 + index).sin() * 0.1
    })
}

fn export(model: &CausalLm, files: &ModelFiles, out: &Path) -> PathBuf {
    let path = out.join("model.gguf");
    save_gguf(model, files, "a model", GgufType::F32, &path).unwrap();
    path
}

/// The weights must be equal bit for bit, but for those of Gemma's norms, which the file has plus 1.
fn assert_same_weights(before: &CausalLm, after: &CausalLm) {
    let (expected, found) = (weights(before), weights(after));
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    for (path, expected) in &expected {
        let around = before.spec().norm == NormKind::RmsFromOne && path.ends_with("norm.weight");
        let same = |a: &f32, b: &f32| if around { (a - b).abs() < 2e-7 } else { a.to_bits() == b.to_bits() };
        assert!(expected.iter().zip(&found[path]).all(|(a, b)| same(a, b)), "{} {path}", before.spec().family);
    }
}

/// What a file can say of a model: all but the name of Mistral. The rotary embedding of each block stands alone.
fn comparable(spec: &ModelSpec) -> (ModelSpec, Vec<Option<Rope>>) {
    let family = if spec.family == "mistral" { "llama" } else { spec.family };
    let ropes = spec.layers.iter().map(|layer| layer.rope.map(|index| spec.ropes[index].clone())).collect();
    let mut spec = ModelSpec { family, eos: vec![], ropes: vec![], ..spec.clone() };
    spec.layers.iter_mut().for_each(|layer| layer.rope = None);
    (spec, ropes)
}

#[test]
fn every_family_comes_back_from_its_file_alone() {
    for name in FAMILIES {
        for sentence_piece in [false, true] {
            let (mut config, files) = family(name, sentence_piece);
            // A file says no window where readers take none; the context ends there.
            if name == "mistral-window" || name == "phi3" {
                config["sliding_window"] = Value::Null;
            }
            // Files of GPT-NeoX do not say which of two GELUs; published models have the exact one.
            if name == "gpt-neox" {
                config["hidden_act"] = "gelu".into();
            }
            let (model, out) = (told_apart(&config), tempfile::tempdir().unwrap());
            let path = export(&model, &files, out.path());
            let file = GgufModel::open(&Registry::builtin(), &path).unwrap();
            assert_eq!(comparable(file.spec()), comparable(model.spec()), "{name}");
            assert_same_weights(&model, &CausalLm::open(&path, LoadOptions::default(), &device::cpu()).unwrap());
        }
    }
}

#[test]
fn every_rotary_scaling_comes_back() {
    let yarn = json!({"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32});
    let linear = json!({"rope_type": "linear", "rope_theta": 1e4, "factor": 2.5});
    let llama_3 = json!({"rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let mut odd = longrope();
    odd["rope_parameters"]["attention_factor"] = 1.5.into();
    let with = |scaling: Value| {
        let (mut config, _) = family("llama", true);
        config["head_dim"] = 64.into();
        config["rope_parameters"] = scaling;
        config
    };
    for config in [with(yarn), with(linear), with(llama_3), longrope(), odd] {
        let (_, files) = family(if config["model_type"] == "phi3" { "phi3" } else { "llama" }, true);
        let (model, out) = (random(&config), tempfile::tempdir().unwrap());
        let mut again =
            GgufModel::open(&Registry::builtin(), &export(&model, &files, out.path())).unwrap().spec().clone();
        if config["model_type"] == "phi3" {
            again.layers.iter_mut().for_each(|layer| layer.attention.window = None);
        }
        let mut expected = model.spec().clone();
        expected.layers.iter_mut().for_each(|layer| layer.attention.window = None);
        assert_eq!(comparable(&again), comparable(&expected));
    }
}

#[test]
fn tokenizers_split_text_as_before() {
    let smollm = json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]});
    let mut cases: Vec<(String, CausalLm, ModelFiles)> = vec![];
    for dir in with_tokenizer() {
        let files = ModelFiles::from_dir(&dir).unwrap();
        cases.push((dir.display().to_string(), load(&dir), files.clone()));
        if files.get("tokenizer.json").is_some_and(|bytes| bytes.windows(9).any(|part| part == b"ByteLevel")) {
            let mut digits = files;
            edit(&mut digits, "tokenizer.json", |json| json["pre_tokenizer"] = smollm.clone());
            cases.push((format!("{} with digits", dir.display()), load(&dir), digits));
        }
    }
    let texts = texts();
    assert!(texts.len() > 20);
    for (name, model, files) in cases {
        let (out, before) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = export(&model, &files, out.path());
        save(&model, &files, before.path(), SHARD_BYTES).unwrap();
        let before = Tokenizer::from_path(before.path()).unwrap();
        let after = Tokenizer::from_path(&path).unwrap();
        for text in &texts {
            for special in [true, false] {
                let ids = before.encode(text, special).unwrap();
                assert_eq!(after.encode(text, special).unwrap(), ids, "{name}: {text:?}");
                assert_eq!(after.decode(&ids).unwrap(), before.decode(&ids).unwrap(), "{name}: {text:?}");
            }
        }
        let facts = |of: &Tokenizer| (of.bos(), of.eos(), of.template().map(|template| template.source().to_owned()));
        assert_eq!(facts(&after), facts(&before), "{name}");
    }
}

/// A directory made of a file's own metadata is a model as any other.
#[test]
fn a_file_becomes_a_directory() {
    let (dir, out) = (root().join("spo-cli/assets/stories260K"), tempfile::tempdir().unwrap());
    let model = load(&dir);
    let path = export(&model, &ModelFiles::from_dir(&dir).unwrap(), out.path());
    let again = CausalLm::open(&path, LoadOptions::default(), &device::cpu()).unwrap();
    save(&again, &ModelFiles::from_path(&path).unwrap(), &out.path().join("hf"), SHARD_BYTES).unwrap();
    let last = load(&out.path().join("hf"));
    assert_same_weights(&model, &last);
    assert_eq!(comparable(last.spec()), comparable(model.spec()));
    assert_eq!(last.spec().eos, [2]);
}
