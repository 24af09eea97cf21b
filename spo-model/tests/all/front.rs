//! Conditional adapters: exact at every point, read back as they were written, and what is refused.

use burn::tensor::Tensor;
use spo_core::logprob::HeadOptions;
use spo_data::Group;
use spo_model::lora::front::front_of;
use spo_model::lora::{
    Condition, FrontSpec, LoraSpec, Weights, is_adapter, load_adapter, load_adapter_as, merge_adapter_at, save_adapter,
};
use spo_model::{CausalLm, ModelSpec, device, parameters};
use std::path::Path;

fn base() -> CausalLm {
    let text = r#"{"model_type": "llama", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": false}"#;
    CausalLm::random(&ModelSpec::from_json(text).unwrap(), 1, &device::cpu())
}

fn of(dimensions: [&str; 2]) -> FrontSpec {
    FrontSpec { condition: Condition::Weights(dimensions.map(String::from).to_vec()), shared_rank: 2 }
}

fn spec() -> LoraSpec {
    LoraSpec { front: Some(of(["honesty", "helpfulness"])), ..LoraSpec::new(3, 6.0) }
}

/// A front whose B is not 0.
fn trained() -> CausalLm {
    let fresh = base().with_lora(&spec(), 1).unwrap();
    parameters::replace(fresh, "", |p| {
        let ramp = Tensor::arange(0..p.value.dims()[0] as i64, &p.value.device()).float().sin() * 0.3;
        if p.path.ends_with(".lora.b") { p.value + ramp } else { p.value }
    })
}

fn logps(model: &CausalLm) -> Vec<f64> {
    let answers = [[1u32, 2, 3, 4], [7, 6, 5, 9], [20, 21, 22, 3]];
    let group = Group { prompt: &[11, 12], answers: answers.iter().map(|answer| &answer[..]).collect() };
    let scored = model.score(&[group], 512, &HeadOptions::default(), &mut |_| ());
    scored[0].iter().map(|logps| logps.iter().map(|logp| f64::from(*logp)).sum()).collect()
}

fn largest(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn a_fresh_front_changes_nothing_at_any_weights() {
    let plain = logps(&base());
    let fresh = base().with_lora(&spec(), 1).unwrap();
    assert_eq!(fresh.weights(), Some(vec![0.5, 0.5]));
    for weights in [[1.0, 0.0], [0.3, 0.7]] {
        assert!(largest(&logps(&fresh.clone().with_weights(&weights)), &plain) < 1e-12);
    }
    // A and B of ranks 2 + 3, a core of 2² + 2 · 3².
    let layer = parameters::count(&fresh, |path| path.starts_with("layers.0.mlp.up_proj") && is_adapter(path));
    assert_eq!(layer, 5 * (32 + 48) + 4 + 2 * 9);
    assert_eq!(base().weights(), None);
}

#[test]
fn at_any_weights_a_front_is_a_plain_adapter_and_a_merged_model() {
    let front = trained();
    let mut seen: Vec<Vec<f64>> = vec![];
    for weights in [[1.0, 0.0], [0.0, 1.0], [0.7, 0.3], [0.25, 0.75]] {
        let conditioned = logps(&front.clone().with_weights(&weights));
        let point = front.clone().at_weights(&weights);
        assert!(point.weights().is_none() && point.has_lora());
        assert!(largest(&logps(&point), &conditioned) < 1e-5, "{}", largest(&logps(&point), &conditioned));
        let merged = point.merged();
        let difference = largest(&logps(&merged), &conditioned);
        // Four tokens of log-probs near -4 nats each.
        assert!(difference < 1e-6 * 40.0, "{difference}");
        assert!(seen.iter().all(|other| largest(other, &conditioned) > 1e-3), "weights change what it says");
        seen.push(conditioned);
    }
}

#[test]
fn the_files_of_a_front_come_back_and_export_any_point() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let front = trained();
    save_adapter(&front, &spec(), "base", dir.path()).unwrap();
    assert!(!dir.path().join("adapter_config.json").exists(), "PEFT would take it for a plain adapter");
    assert_eq!(front_of(dir.path()).unwrap(), spec().front);
    let (loaded, found) = load_adapter(base(), dir.path()).unwrap();
    assert_eq!((found.rank, found.alpha, &found.front), (3, 6.0, &spec().front));
    assert_eq!(parameters::hash(&loaded, is_adapter), parameters::hash(&front, is_adapter));
    let again = load_adapter_as(base(), dir.path(), &spec()).unwrap();
    assert_eq!(parameters::hash(&again, is_adapter), parameters::hash(&front, is_adapter));

    let weights = [0.7, 0.3];
    let conditioned = logps(&front.with_weights(&weights));
    let merged = merge_adapter_at(base(), dir.path(), &weights).unwrap();
    assert!(largest(&logps(&merged), &conditioned) < 4e-5);
    // An ordinary adapter of the sum of the ranks, in PEFT's files.
    save_adapter(&loaded.at_weights(&weights), &found.at_point(), "base", out.path()).unwrap();
    assert_eq!(front_of(out.path()).unwrap(), None);
    let (point, plain) = load_adapter(base(), out.path()).unwrap();
    assert_eq!((plain.rank, plain.alpha, plain.front), (5, 10.0, None));
    assert!(largest(&logps(&point), &conditioned) < 4e-5);
}

fn refused(dir: &Path) -> String {
    load_adapter(base(), dir).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn what_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    save_adapter(&trained(), &spec(), "base", dir.path()).unwrap();
    let other = LoraSpec { front: Some(of(["honesty", "brevity"])), ..spec() };
    let error = load_adapter_as(base(), dir.path(), &other).unwrap_err().to_string();
    assert!(error.contains("conditioned on honesty, helpfulness, expected honesty, brevity"), "{error}");
    let plain = LoraSpec { front: None, rank: 5, ..spec() };
    let error = load_adapter_as(base(), dir.path(), &plain).unwrap_err().to_string();
    assert!(error.contains("with a core of shapes"), "{error}");
    assert!(base().with_lora(&LoraSpec { dora: true, ..spec() }, 0).unwrap_err().to_string().contains("dora"));

    let config = dir.path().join("front_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        std::fs::write(&config, text.replace(from, to)).unwrap();
        refused(dir.path())
    };
    assert!(with("\"spo_front\": 1", "\"spo_front\": 2").contains("found 2, expected 1"));
    assert!(with("\"rank\": 3", "\"rank\": 4").contains("expected"));
    assert!(with("model.layers.0.mlp.up_proj", "model.layers.7.mlp.up_proj").contains("layers.7"));
    assert!(with("\"dropout\"", "\"droput\"").contains("droput"));
    assert!(with("    \"honesty\",\n", "").contains("two dimensions"));
    std::fs::write(&config, &text).unwrap();
    std::fs::remove_file(dir.path().join("front_model.safetensors")).unwrap();
    assert!(refused(dir.path()).contains("front_model.safetensors"));
}

#[test]
fn weights_are_one_for_each_dimension_and_sum_to_one() {
    let front = spec().front.unwrap();
    let on = |text: &str| text.parse::<Weights>().unwrap().on(&front);
    assert_eq!(on("helpfulness=0.75,honesty=0.25").unwrap(), [0.25, 0.75]);
    assert_eq!(on(" honesty = 1 , helpfulness = 0 ").unwrap(), [1.0, 0.0]);
    for (text, reason) in [
        ("honesty=0.7,helpfulness=0.4", "they sum to 1.1"),
        ("honesty=1", "`helpfulness` has no weight"),
        ("honesty=0.5,brevity=0.5", "knows no dimension `brevity`"),
        ("honesty=-0.5,helpfulness=1.5", "the weight of `honesty` is -0.5"),
        ("honesty=0.5,honesty=0.5,helpfulness=0", "`honesty` has several"),
        ("honesty=nan,helpfulness=1", "the weight of `honesty` is NaN"),
    ] {
        let error = on(text).unwrap_err();
        assert!(error.to_string().contains(reason), "{text}: {error}");
        assert!(error.hint().unwrap().contains("honesty=0.5,helpfulness=0.5"), "{:?}", error.hint());
    }
    assert!("honesty".parse::<Weights>().unwrap_err().contains("expected DIMENSION=WEIGHT"));
    assert!("honesty=much".parse::<Weights>().unwrap_err().contains("no number"));
}
