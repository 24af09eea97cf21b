//! Adapters that stay out of the directions of earlier ones, in runs.

use crate::broken_off::goes_on_bit_for_bit;
use crate::built_in::{self, start};
use burn::tensor::Tensor;
use spo_model::lora::{load_adapter, projections};
use spo_model::{CausalLm, device};
use spo_train::config::RunSpec;
use spo_train::events::Event;
use spo_train::events::sink::Memory;
use spo_train::prepare;
use std::path::Path;

const RANK: usize = 4;

fn spec(dir: &Path, lora: &str) -> RunSpec {
    let text = format!(
        r#"schema = 1
seed = 5
out = "out"
{}{}[lora]
rank = {RANK}
{lora}
[training]
steps = 4
pairs-per-step = 6
learning-rate = 1e-2
weight-decay = 0.1
warmup-steps = 0
[[rounds]]
dimension = "honesty"
[[rounds]]
dimension = "helpfulness"
[[rounds]]
dimension = "honesty"
name = "again"
[evaluation]
bootstrap-resamples = 40
kl-samples = 0
samples = 0
[checkpoints]
every-steps = 1
"#,
        built_in::tables("cpu", 60, 24),
        built_in::TEXT,
    );
    built_in::written(dir, &text)
}

/// Of each layer the columns of `B` that a round added, and those below them; each column `[out]`.
fn parts(out: &Path, policy: &str, below: usize) -> Vec<[Vec<Vec<f64>>; 2]> {
    let model = built_in::assets().join("stories260K");
    let base = CausalLm::open(&model, Default::default(), &device::cpu()).unwrap();
    let (mut model, _) = load_adapter(base, &out.join("policies").join(policy)).unwrap();
    let columns = |b: Tensor<2>| -> Vec<Vec<f64>> {
        let columns = b.dims()[1];
        let of = |index| b.clone().narrow(1, index, 1).into_data().iter::<f64>().collect();
        (0..columns).map(of).collect()
    };
    let layers = projections(&mut model).into_iter();
    let split = layers.map(|(_, linear)| {
        let mut all = columns(linear.lora.as_ref().unwrap().b.val());
        let added = all.split_off(below);
        [all, added]
    });
    split.collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The largest cosine of an added column and one below.
fn overlap(out: &Path, policy: &str, below: usize) -> f64 {
    let mut largest = 0.0_f64;
    for [earlier, added] in parts(out, policy, below) {
        for (x, y) in earlier.iter().flat_map(|x| added.iter().map(move |y| (x, y))) {
            let norms = (dot(x, x) * dot(y, y)).sqrt();
            assert!(norms > 0.0, "every round moves");
            largest = largest.max((dot(x, y) / norms).abs());
        }
    }
    largest
}

#[test]
fn later_adapters_stay_outside_whatever_the_optimizer_does() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    start(&spec(dir.path(), "rounds = \"stack\"\nproject = 100"), &mut Memory::default()).unwrap();
    // AdamW with weight decay, four steps: all directions of the rounds before are left alone.
    for (policy, below) in [("round-2-helpfulness", RANK), ("again", 2 * RANK)] {
        let found = overlap(&out, policy, below);
        assert!(found < 1e-6, "{policy}: {found}");
    }
    std::fs::remove_dir_all(&out).unwrap();
    start(&spec(dir.path(), "rounds = \"stack\""), &mut Memory::default()).unwrap();
    let without = overlap(&out, "round-2-helpfulness", RANK);
    assert!(without > 0.1, "the control: {without}");
}

#[test]
fn a_projected_run_that_breaks_off_goes_on_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let (spec, out) = (spec(dir.path(), "rounds = \"stack\"\nproject = 2"), dir.path().join("out"));
    let mut seen = Memory::default();
    start(&spec, &mut seen).unwrap();
    let middle = |at: &usize| matches!(&seen.0[at - 1].event, Event::Step(figures) if figures.step == 3);
    goes_on_bit_for_bit(&spec, &out, (1..=seen.0.len()).filter(middle));
}

#[test]
fn projection_needs_fresh_adapters_and_gradients() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |lora: &str, set: &str| {
        let mut spec = spec(dir.path(), lora);
        if !set.is_empty() {
            spec.apply_set(set).unwrap();
        }
        let error = prepare(&spec, &mut Memory::default()).unwrap_err();
        format!("{error}; {:?}", error.hint())
    };
    assert!(refused("project = 2", "").contains("`rounds = \\\"stack\\\"`"));
    let found = refused("rounds = \"stack\"\nproject = 2", "rounds.1.optimizer=\"mezo\"");
    assert!(found.contains("adamw") || found.contains("optimizer"), "{found}");
}
