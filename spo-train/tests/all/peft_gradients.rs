//! Gradients of adapters, magnitudes and modules to save against PEFT: fixtures/peft.

use serde_json::Value;
use spo_data::{Group, PackedBatch};
use spo_model::layout::Layout;
use spo_model::lora::load_adapter;
use spo_model::{CausalLm, device};
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::tape::{Recompute, TapeOptions, differentiate};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// PEFT's name of a trained parameter.
fn peft_name(layout: &Layout, path: &str) -> String {
    let path = path
        .replace(".lora.a", ".lora_A.weight")
        .replace(".lora.b", ".lora_B.weight")
        .replace(".lora.magnitude", ".lora_magnitude_vector");
    format!("base_model.model.{}", layout.name(&path))
}

fn rows(case: &Value) -> Vec<[Vec<u32>; 3]> {
    let ids = |ids: &Value| ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let row = |row: &Value| [0, 1, 2].map(|part| ids(&row[part]));
    case["rows"].as_array().unwrap().iter().map(row).collect()
}

/// Norms of the gradients of the chosen answers' summed log-probs, by PEFT's names.
fn norms(case: &Value, dir: &Path, recompute: Recompute) -> Vec<(String, f64)> {
    let base = CausalLm::from_dir(&fixtures().join(case["base"].as_str().unwrap()), None, &device::cpu()).unwrap();
    let (adapted, spec) = load_adapter(base, dir).unwrap();
    let rows = rows(case);
    let groups: Vec<Group> = rows.iter().map(|[p, c, r]| Group { prompt: p, answers: vec![c, r] }).collect();
    let batch = PackedBatch::new(&groups);
    let options = TapeOptions {
        recompute,
        trainable: Trainable::AdaptersAnd(spec.saved),
        head: Default::default(),
        router_loss: 0.0,
    };
    let mut gradients = Gradients::default();
    differentiate(&adapted, &batch, &options, &mut gradients, |logps| {
        let mut logp_gradients = vec![0.0; logps.len()];
        batch.sequences.iter().step_by(2).for_each(|rows| logp_gradients[rows.clone()].fill(1.0));
        Ok::<_, ()>(logp_gradients)
    })
    .unwrap();
    let norm = |path: &str| gradients.get(path).unwrap().square().sum().into_scalar::<f32>().sqrt();
    gradients.names().map(|path| (peft_name(adapted.spec().layout, path), f64::from(norm(path)))).collect()
}

#[test]
fn gradient_norms_equal_peft() {
    for name in ["dora", "dora-rslora-some", "pattern", "saved", "gpt2", "gpt2-dora", "gpt-neox", "phi3"] {
        let dir = fixtures().join("peft").join(name);
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
