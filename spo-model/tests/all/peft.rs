//! Adapters against PEFT: fixtures/peft, made by tools/parity/adapter_golden.py.

use burn::tensor::{DType, Tensor};
use serde_json::Value;
use spo_data::Group;
use spo_model::decoder::blocks::BlockBits;
use spo_model::load::LoadOptions;
use spo_model::lora::{LoraSpec, SavedModules, is_adapter, load_adapter, merge_adapter, save_adapter};
use spo_model::{CausalLm, device, parameters};
use std::path::{Path, PathBuf};

const CASES: [&str; 8] = ["dora", "dora-rslora-some", "pattern", "saved", "gpt2", "gpt2-dora", "gpt-neox", "phi3"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn case(name: &str) -> (PathBuf, Value) {
    let dir = fixtures().join("peft").join(name);
    let golden = std::fs::read_to_string(dir.join("golden.json")).unwrap();
    (dir, serde_json::from_str(&golden).unwrap())
}

fn base(golden: &Value) -> CausalLm {
    CausalLm::from_dir(&fixtures().join(golden["base"].as_str().unwrap()), None, &device::cpu()).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// Prompt, chosen and rejected of each row.
fn rows(golden: &Value) -> Vec<[Vec<u32>; 3]> {
    let row = |row: &Value| [0, 1, 2].map(|part| ids(&row[part]));
    golden["rows"].as_array().unwrap().iter().map(row).collect()
}

/// All chosen, then all rejected.
fn logps(model: &CausalLm, rows: &[[Vec<u32>; 3]]) -> Vec<f64> {
    let groups: Vec<Group> = rows.iter().map(|[p, c, r]| Group { prompt: p, answers: vec![c, r] }).collect();
    let scored = model.score(&groups, 100_000, &Default::default(), &mut |_| ());
    let sums = |answer: usize| scored.iter().map(move |a| a[answer].iter().map(|l| f64::from(*l)).sum::<f64>());
    sums(0).chain(sums(1)).collect()
}

fn largest(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f64::max)
}

#[test]
fn adapters_and_merges_equal_peft() {
    for name in CASES {
        let (dir, golden) = case(name);
        let rows = rows(&golden);
        let plain = logps(&base(&golden), &rows);
        let (adapted, spec) = load_adapter(base(&golden), &dir).unwrap();
        assert_eq!(spec.dora, name.contains("dora"), "{name}");
        assert_eq!(spec.rslora, ["dora-rslora-some", "phi3"].contains(&name));
        let found = logps(&adapted, &rows);
        assert!(largest(&found, &floats(&golden["seq_logps"])) < 1e-4, "{name}: {found:?}");
        assert!(largest(&found, &plain) > 0.1, "{name}: the adapter has no effect");
        let expected = floats(&golden["merged_seq_logps"]);
        assert!(largest(&logps(&adapted.merged(), &rows), &expected) < 2e-4, "{name}");
        let merged = merge_adapter(base(&golden), &dir).unwrap();
        assert!(!merged.has_lora());
        assert!(largest(&logps(&merged, &rows), &expected) < 2e-4, "{name}");
    }
}

#[test]
fn what_is_written_reads_back_with_the_same_bits() {
    for name in CASES {
        let (dir, golden) = case(name);
        let (adapted, spec) = load_adapter(base(&golden), &dir).unwrap();
        let out = tempfile::tempdir().unwrap();
        save_adapter(&adapted, &spec, "the base", out.path()).unwrap();
        let (again, spec_again) = load_adapter(base(&golden), out.path()).unwrap();
        let hash = |model: &CausalLm| parameters::hash(model, |_| true);
        assert_eq!(hash(&adapted), hash(&again), "{name}");
        assert_eq!((spec.rank, spec.alpha, spec.saved), (spec_again.rank, spec_again.alpha, spec_again.saved));
        let read = |path: &Path| safetensors_of(&std::fs::read(path.join("adapter_model.safetensors")).unwrap());
        assert_eq!(read(&dir), read(out.path()), "{name}: other names or values than PEFT's");
    }
}

/// Name, shape and bytes of every tensor.
fn safetensors_of(bytes: &[u8]) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let mut all: Vec<_> =
        file.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec())).collect();
    all.sort();
    all
}

fn spec(dora: bool) -> LoraSpec {
    LoraSpec { dora, ..LoraSpec::new(3, 6.0) }
}

/// The model with the trained adapters' B made other than zero.
fn disturbed(model: CausalLm, by: f64) -> CausalLm {
    parameters::replace(model, "", |p| {
        let ramp = Tensor::arange(0..p.value.dims()[0] as i64, &p.value.device()).float().sin() * by;
        if p.path.ends_with(".lora.b") { p.value + ramp } else { p.value }
    })
}

#[test]
fn a_fresh_adapter_changes_nothing() {
    let (_, golden) = case("dora");
    let rows = rows(&golden);
    let plain = logps(&base(&golden), &rows);
    for dora in [false, true] {
        let fresh = base(&golden).with_lora(&spec(dora), 1).unwrap();
        // DoRA divides by the lengths that it multiplies with.
        assert!(largest(&logps(&fresh, &rows), &plain) < if dora { 1e-4 } else { 1e-12 }, "dora {dora}");
    }
}

#[test]
fn a_stack_is_one_adapter_of_the_sum_of_ranks() {
    let (_, golden) = case("dora");
    let rows = rows(&golden);
    let below = disturbed(base(&golden).with_lora(&spec(false), 1).unwrap(), 0.02);
    let start = logps(&below, &rows);
    let stacked = below.stacked(&spec(false), 2).unwrap();
    assert!(largest(&logps(&stacked, &rows), &start) < 1e-12, "a fresh adapter on top changes nothing");
    let trained = parameters::count(&stacked, is_adapter);
    let stacked = disturbed(stacked, -0.03);
    let expected = logps(&stacked, &rows);
    assert!(largest(&expected, &start) > 0.1);
    let joined = stacked.clone().joined();
    assert_eq!(parameters::count(&joined, is_adapter), 2 * trained);
    assert!(largest(&logps(&joined, &rows), &expected) < 1e-4);
    assert!(largest(&logps(&stacked.clone().merged(), &rows), &expected) < 2e-4);
    let out = tempfile::tempdir().unwrap();
    save_adapter(&stacked, &spec(false), "base", out.path()).unwrap();
    let (loaded, spec_read) = load_adapter(base(&golden), out.path()).unwrap();
    assert_eq!((spec_read.rank, spec_read.alpha), (6, 12.0));
    assert_eq!(logps(&loaded, &rows), logps(&joined, &rows));
    assert!(joined.stacked(&spec(true), 3).unwrap_err().to_string().contains("do not add up"));
}

#[test]
fn names_that_the_model_does_not_have_are_refused() {
    let (_, golden) = case("dora");
    let saved = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        SavedModules::new(&names, base(&golden).spec())
    };
    assert!(saved(&["head"]).unwrap_err().to_string().contains("no module is called `head`"));
    let error = saved(&["q_norm"]).unwrap_err().to_string();
    assert!(error.contains("no module is called `q_norm`; there are embed_tokens, lm_head, norm, "), "{error}");
    let tied: Value = serde_json::json!({"base": "trl/qwen3-tiny-policy"});
    let error = SavedModules::new(&["lm_head".into()], base(&tied).spec()).unwrap_err();
    assert!(error.to_string().contains("shares the embedding's weight"), "{error}");
}

#[test]
fn a_damaged_configuration_says_what_is_wrong() {
    let (dir, golden) = case("pattern");
    let text = std::fs::read_to_string(dir.join("adapter_config.json")).unwrap();
    let with = |key: &str, value: Value| {
        let out = tempfile::tempdir().unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config[key] = value;
        std::fs::write(out.path().join("adapter_config.json"), config.to_string()).unwrap();
        std::fs::copy(dir.join("adapter_model.safetensors"), out.path().join("adapter_model.safetensors")).unwrap();
        load_adapter(base(&golden), out.path()).map(|_| ()).unwrap_err().to_string()
    };
    assert!(with("peft_type", "IA3".into()).contains("expected \"LORA\""));
    assert!(with("r", 0.into()).contains("r and lora_alpha"));
    assert!(with("bias", "all".into()).contains("expected \"none\""));
    assert!(with("init_lora_weights", "pissa_niter_4".into()).contains("changes the base"));
    assert!(with("trainable_token_indices", serde_json::json!([1])).contains("trainable_token_indices"));
    assert!(with("rank_pattern", serde_json::json!({"up_proj": 3})).contains("expected [3, 64]"));
    assert!(with("use_dora", true.into()).contains("missing"));
}

#[test]
fn a_quantised_base_takes_less_memory_and_drifts_little() {
    let (dir, golden) = case("dora");
    let rows = rows(&golden);
    let path = fixtures().join(golden["base"].as_str().unwrap());
    let plain = logps(&base(&golden), &rows);
    let mut last = 0.0;
    for (bits, least, most) in [(BlockBits::Eight, 1e-4, 0.5), (BlockBits::Four, 1e-2, 5.0)] {
        let options = LoadOptions { storage: None, blocks: Some(bits.into()) };
        let quantised = CausalLm::open(&path, options, &device::cpu()).unwrap();
        let drift = largest(&logps(&quantised, &rows), &plain);
        assert!((least..most).contains(&drift) && drift > last, "{bits:?}: {drift}");
        last = drift;
        // An adapter fits the quantised base as well, and its merge is dense.
        let (adapted, _) = load_adapter(quantised.clone(), &dir).unwrap();
        let effect = largest(&logps(&adapted, &rows), &floats(&golden["seq_logps"]));
        assert!(effect < 1.5 * most, "{bits:?}: {effect}");
        let merged = adapted.clone().merged();
        assert_eq!(
            merged.layers[0].mlp.as_ref().unwrap().up_proj.as_ref().unwrap().weight.as_ref().unwrap().val().dtype(),
            DType::F32
        );
        assert!(largest(&logps(&merged, &rows), &logps(&adapted, &rows)) < 2e-4);
        // The hash tells one quantised base from another.
        assert_ne!(parameters::hash(&quantised, |_| true), parameters::hash(&base(&golden), |_| true));
    }
}
