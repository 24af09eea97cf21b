//! Gradients of adapters, magnitudes and modules to save against PEFT: fixtures/peft.
#![allow(clippy::unwrap_used, missing_docs, dead_code)]

mod common;

use common::{dataset, fixtures, golden, model};
use serde_json::Value;
use spo_data::{Group, PackedBatch};
use spo_model::lora::load_adapter;
use spo_model::parameters::checkpoint_name;
use spo_train::config::spec::Recompute;
use spo_train::gradients::{Gradients, Trainable};
use spo_train::tape::{TapeOptions, differentiate};

/// PEFT's name of a trained parameter.
fn peft_name(path: &str) -> String {
    let path = path
        .replace(".lora.a", ".lora_A.weight")
        .replace(".lora.b", ".lora_B.weight")
        .replace(".lora.magnitude", ".lora_magnitude_vector");
    format!("base_model.model.{}", checkpoint_name(&path))
}

/// Norms of the gradients of the chosen answers' summed log-probs, by PEFT's names.
fn norms(case: &Value, dir: &std::path::Path, recompute: Recompute) -> Vec<(String, f64)> {
    let base = case["base"].as_str().unwrap();
    let (adapted, spec) = load_adapter(model(base), dir).unwrap();
    let data = dataset(&golden(base.split('-').next().unwrap()));
    let groups: Vec<Group> = data
        .examples
        .iter()
        .map(|example| Group { prompt: &example.prompt, answers: vec![&example.answers[0], &example.answers[1]] })
        .collect();
    let batch = PackedBatch::new(&groups);
    let options = TapeOptions { recompute, trainable: Trainable::AdaptersAnd(spec.saved), head: Default::default() };
    let mut gradients = Gradients::default();
    differentiate(&adapted, &batch, &options, &mut gradients, |logps| {
        let mut slopes = vec![0.0; logps.len()];
        batch.sequences.iter().step_by(2).for_each(|rows| slopes[rows.clone()].fill(1.0));
        Ok::<_, ()>(slopes)
    })
    .unwrap();
    let norm = |path: &str| gradients.get(path).unwrap().clone().square().sum().into_scalar::<f32>().sqrt();
    gradients.names().map(|path| (peft_name(path), f64::from(norm(path)))).collect()
}

#[test]
fn gradient_norms_equal_peft() {
    for name in ["dora", "dora-rslora-some", "pattern", "saved"] {
        let dir = fixtures().join("../peft").join(name);
        let case: Value = serde_json::from_str(&std::fs::read_to_string(dir.join("golden.json")).unwrap()).unwrap();
        let expected = case["gradient_norms"].as_object().unwrap();
        for recompute in [Recompute::None, Recompute::Blocks] {
            let found = norms(&case, &dir, recompute);
            assert_eq!(found.len(), expected.len(), "{name}");
            for (path, norm) in found {
                let expected = expected[&path].as_f64().unwrap();
                assert!((norm - expected).abs() <= 1e-3 * expected, "{name} {path}: {norm}, expected {expected}");
            }
        }
    }
}
