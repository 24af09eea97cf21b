//! Mixtures of experts on disk: MXFP4, stacked tensors, adapters of single experts, and what is refused.

use crate::common::{load, root, tensors};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Value, json};
use spo_model::export::{ModelFiles, SHARD_BYTES, save};
use spo_model::load::Storage;
use spo_model::lora::{LoraSpec, Targets, load_adapter, projections, save_adapter};
use spo_model::{CausalLm, ModelSpec, device, parameters};
use std::collections::BTreeMap;
use std::path::Path;

/// Experts of a block, width of the residual stream, width inside an expert.
const EXPERTS: usize = 3;
const HIDDEN: usize = 64;
const INNER: usize = 32;

fn config() -> Value {
    json!({
        "model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "vocab_size": 40, "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "max_position_embeddings": 128, "num_local_experts": EXPERTS, "num_experts_per_tok": 2,
        "sliding_window": 8, "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "mxfp4"},
    })
}

/// Some bytes of a name, below `limit`.
fn bytes(name: &str, count: usize, limit: u16) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().update(name.as_bytes()).finalize_xof();
    let mut bytes = vec![0; count];
    reader.fill(&mut bytes);
    bytes.into_iter().map(|byte| (u16::from(byte) % limit) as u8).collect()
}

/// A checkpoint whose experts are stored in MXFP4, with so many of them.
fn write_mxfp4(dir: &Path, experts: usize) {
    let spec = ModelSpec::from_json(&config().to_string()).unwrap();
    let files = ModelFiles { files: vec![("config.json".into(), config().to_string().into_bytes())] };
    save(&CausalLm::random(&spec, 3, &device::cpu()).stored_as(Storage::Bf16), &files, dir, SHARD_BYTES).unwrap();
    std::fs::write(dir.join("config.json"), config().to_string()).unwrap();
    let mut all: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> =
        tensors(dir).into_iter().map(|(name, (shape, bytes))| (name, (Dtype::BF16, shape, bytes))).collect();
    for layer in 0..2 {
        for (projection, out, inputs) in [("gate_up_proj", 2 * INNER, HIDDEN), ("down_proj", HIDDEN, INNER)] {
            let name = format!("model.layers.{layer}.mlp.experts.{projection}");
            all.remove(&name).unwrap();
            let (shape, groups) = (vec![experts, out, inputs / 32], experts * out * inputs / 32);
            let (blocks, scales) = (format!("{name}_blocks"), format!("{name}_scales"));
            let wide = [shape.clone(), vec![16]].concat();
            all.insert(blocks.clone(), (Dtype::U8, wide, bytes(&blocks, 16 * groups, 256)));
            let powers = bytes(&scales, groups, 6).into_iter().map(|power| power + 118).collect();
            all.insert(scales, (Dtype::U8, shape, powers));
        }
    }
    let views = all
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
}

/// What transformers makes of a code: its table of 16 values, times a power of two.
fn value(blocks: &[u8], scales: &[u8], at: usize) -> f32 {
    const VALUES: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
    let code = blocks[at / 2] >> (4 * (at % 2)) & 15;
    VALUES[usize::from(code)] * f32::powi(2.0, i32::from(scales[at / 32]) - 127)
}

#[test]
fn mxfp4_is_dequantised_on_loading() {
    let dir = tempfile::tempdir().unwrap();
    write_mxfp4(dir.path(), EXPERTS);
    let stored = tensors(dir.path());
    for storage in [None, Some(Storage::F32)] {
        let mut model = CausalLm::from_dir(dir.path(), storage, &device::cpu()).unwrap();
        let mut seen = 0;
        for (path, linear) in projections(&mut model).into_iter().filter(|(path, _)| path.contains(".experts.")) {
            let parts: Vec<&str> = path.split('.').collect();
            let (layer, expert, projection) = (parts[1], parts[4].parse::<usize>().unwrap(), parts[5]);
            let name = format!("model.layers.{layer}.mlp.experts.{projection}");
            let (blocks, scales) = (&stored[&format!("{name}_blocks")].1, &stored[&format!("{name}_scales")].1);
            let found: Vec<f32> = linear.dense().into_data().iter::<f32>().collect();
            for (at, found) in found.iter().enumerate() {
                assert_eq!(*found, value(blocks, scales, expert * found_len(projection) + at), "{path} {at}");
            }
            seen += 1;
        }
        assert_eq!(seen, 2 * EXPERTS * 2);
    }
    // Written as bf16, without the mark of MXFP4, and read again.
    let (model, out) = (load(dir.path()), tempfile::tempdir().unwrap());
    save(&model, &ModelFiles::from_dir(dir.path()).unwrap(), out.path(), SHARD_BYTES).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(out.path().join("config.json")).unwrap()).unwrap();
    assert_eq!((config.get("quantization_config"), &config["torch_dtype"]), (None, &json!("bfloat16")));
    assert_eq!(tensors(out.path())["model.layers.1.mlp.experts.gate_up_proj"].0, [EXPERTS, HIDDEN, 2 * INNER]);
    let hash = |model: &CausalLm| parameters::hash(model, |_| true);
    assert_eq!(hash(&model), hash(&load(out.path())));
}

fn found_len(projection: &str) -> usize {
    if projection == "down_proj" { HIDDEN * INNER } else { 2 * INNER * HIDDEN }
}

#[test]
fn another_number_of_experts_is_an_error() {
    for experts in [EXPERTS - 1, EXPERTS + 1] {
        let dir = tempfile::tempdir().unwrap();
        write_mxfp4(dir.path(), experts);
        let error = CausalLm::from_dir(dir.path(), None, &device::cpu()).unwrap_err().to_string();
        assert!(error.contains("experts.gate_up_proj") && error.contains(&format!("[{experts}")), "{error}");
    }
    let spec = |edit: fn(&mut Value)| {
        let mut config = config();
        edit(&mut config);
        ModelSpec::from_json(&config.to_string())
    };
    let error = spec(|config| config["num_experts_per_tok"] = 4.into()).unwrap_err().to_string();
    assert!(error.contains("num_experts_per_tok") && error.contains("at most the 3 experts"), "{error}");
    let other = spec(|config| config["quantization_config"]["quant_method"] = "fp8".into()).unwrap_err().to_string();
    assert!(other.contains("stored by fp8"), "{other}");
}

/// Under the checkpoint's names, and of the chosen experts alone.
#[test]
fn adapters_of_experts_come_back() {
    for (name, targets, count) in [
        ("mixtral", vec!["experts.1.w1", "w2"], 3 + 3 * 4),
        ("mixtral", vec!["w1", "w2", "w3", "q_proj"], 3 * 13),
        ("granitemoe", vec!["experts.0.*", "q_proj"], 3 * 2 + 3),
        ("qwen2-moe", vec!["shared_expert.*"], 9),
    ] {
        let dir = root().join("fixtures/families").join(name);
        let spec = LoraSpec {
            targets: Targets::Names(targets.into_iter().map(String::from).collect()),
            ..LoraSpec::new(2, 4.0)
        };
        let mut model = load(&dir).with_lora(&spec, 1).unwrap();
        let adapted = projections(&mut model).into_iter().filter(|(_, linear)| linear.lora.is_some()).count();
        assert_eq!(adapted, count, "{name}");
        // B is 0 in a fresh adapter.
        let model = parameters::replace(model, "", |parameter| match parameter.path.ends_with(".lora.b") {
            true => parameter.value + 0.01,
            false => parameter.value,
        });
        let out = tempfile::tempdir().unwrap();
        save_adapter(&model, &spec, name, out.path()).unwrap();
        let (again, _) = load_adapter(load(&dir), out.path()).unwrap();
        let hash = |model: &CausalLm| parameters::hash(model, |_| true);
        assert_eq!(hash(&model), hash(&again), "{name}");
        // Merged, it is a model of its family with other values.
        let merged = tempfile::tempdir().unwrap();
        save(&again.merged(), &ModelFiles::from_dir(&dir).unwrap(), merged.path(), SHARD_BYTES).unwrap();
        let (before, after) = (tensors(&dir), tensors(merged.path()));
        assert!(before.keys().eq(after.keys()) && before != after, "{name}");
    }
}

#[test]
fn forecasts_count_what_is_held_and_what_is_active() {
    let text = json!({
        "model_type": "qwen3_moe", "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 6144,
        "moe_intermediate_size": 768, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
        "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": true, "rope_theta": 1e6,
        "max_position_embeddings": 40_960, "tie_word_embeddings": false, "hidden_act": "silu",
    });
    // Qwen 3 30B-A3B: 30.5 billion parameters, 3.3 of them active, as its authors state.
    let spec = ModelSpec::from_json(&text.to_string()).unwrap();
    let billions = |count: usize| count as f64 / 1e9;
    assert!((billions(spec.parameters()) - 30.5).abs() < 0.05, "{}", spec.parameters());
    assert!((billions(spec.active_parameters()) - 3.35).abs() < 0.05, "{}", spec.active_parameters());
}
