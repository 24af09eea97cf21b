//! Steps of f16 weights: gradients too small and too large for f16 come out as those of f32 weights.

use crate::common::{dataset, fixtures, golden, logps, model, training};
use crate::trl_curves::{started, steps};
use serde_json::{Map, Value, json};
use spo_model::load::Storage;
use spo_model::{CausalLm, device};
use spo_train::config::TrainingPlan;
use spo_train::step::gradients::Trainable;
use spo_train::task::{PairInputs, PreferenceTask};

/// The gradient norm of the first step of DPO.
fn norm(policy: CausalLm, beta: f64) -> f64 {
    let golden = golden("llama");
    let data = dataset(&golden);
    let pairs = data.pairs("preference");
    let reference = logps(&model("llama-tiny-ref"), &data, &pairs);
    let options: Map<String, Value> = [("beta".to_string(), json!(beta))].into_iter().collect();
    let objective = spo_core::objective::build("dpo", &options).unwrap();
    let inputs = PairInputs::new(&data, &pairs, vec![reference]);
    let task = started(PreferenceTask::new(&data, pairs, objective, inputs, device::cpu()).unwrap());
    let training = TrainingPlan { steps: 1, ..training(4, 100_000) };
    steps(policy, &task, &training, Trainable::All)[0].grad_norm
}

#[test]
fn gradients_of_f16_weights_neither_vanish_nor_overflow() {
    let path = fixtures().join("llama-tiny-policy");
    // At 0.1 it fits as it is; the others would lose most of their digits, and be infinite.
    for beta in [0.1, 1e-5, 1e4] {
        let expected = norm(model("llama-tiny-policy"), beta);
        let found = norm(CausalLm::from_dir(&path, Some(Storage::F16), &device::cpu()).unwrap(), beta);
        assert!((found / expected - 1.0).abs() < 0.02, "beta {beta}: {found} instead of {expected}");
    }
}
