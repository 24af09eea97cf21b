//! Ten optimiser steps, side by side with TRL's: losses to 2e-4, gradient norms to 1e-3, relative.

use crate::common::hooked::Hooked;
use crate::common::{dataset, fixtures, golden, logps, model, training};
use serde_json::{Map, Value, json};
use spo_data::{DataSpec, Group, PackedBatch};
use spo_model::lora::load_adapter;
use spo_model::{CausalLm, device};
use spo_train::config::TrainingPlan;
use spo_train::config::spec::{Recompute, Schedule};
use spo_train::events::reporter::Reporter;
use spo_train::events::sink::Memory;
use spo_train::events::{Event, StepFigures};
use spo_train::phase::stopping::Stopping;
use spo_train::phase::{Phase, PhaseState};
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::tape::{TapeOptions, differentiate};
use spo_train::task::{Mismatched, PairInputs, PreferenceTask, StepTally, SupervisedTask, Task, UnpairedTask};
use std::sync::atomic::AtomicBool;

pub fn steps(model: CausalLm, task: &dyn Task, training: &TrainingPlan, trainable: Trainable) -> Vec<StepFigures> {
    let (mut memory, stop) = (Memory::default(), AtomicBool::new(false));
    let mut reporter = Reporter::new(std::env::temp_dir(), &mut memory, &stop);
    let phase = Phase { name: "curve", round: 1, training, trainable, seed: 0, hold: None, probes: None, shards: 1 };
    phase
        .run(
            PhaseState::new(model, training.optimizer(Trainable::All, 0, 0)),
            task,
            None,
            Stopping::never(),
            None,
            &mut reporter,
        )
        .unwrap();
    let figures = |record| match record {
        Event::Step(figures) => Some(figures),
        _ => None,
    };
    memory.0.into_iter().filter_map(|record| figures(record.event)).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn assert_curve(found: &[StepFigures], curve: &Value, accumulation: usize, what: &str) {
    // TRL logs each micro-batch's loss, already divided by the number of micro-batches.
    let losses: Vec<f64> = numbers(&curve["loss"]).chunks(accumulation).map(|losses| losses.iter().sum()).collect();
    let norms = numbers(&curve["grad_norm"]);
    assert_eq!((found.len(), found.len()), (losses.len(), norms.len()), "{what}");
    for (figures, (loss, norm)) in found.iter().zip(losses.iter().zip(&norms)) {
        let close = |found: f64, expected: f64, tolerance: f64| (found - expected).abs() <= tolerance * expected.abs();
        assert!(
            close(figures.loss, *loss, 2e-4),
            "{what} step {}: loss {} expected {loss}",
            figures.step,
            figures.loss
        );
        assert!(
            close(figures.grad_norm, *norm, 1e-3),
            "{what} step {}: norm {} expected {norm}",
            figures.step,
            figures.grad_norm
        );
    }
}

fn preference_curve(arch: &str, curve: &str, objective: &str, training: &TrainingPlan, accumulation: usize) {
    let golden = golden(arch);
    let data = dataset(&golden);
    let pairs = data.pairs("preference");
    let reference = logps(&model(&format!("{arch}-tiny-ref")), &data, &pairs);
    let options: Map<String, Value> = [("beta".to_string(), json!(0.1))].into_iter().collect();
    let objective = spo_core::objective::build(objective, &options).unwrap();
    let inputs = PairInputs::new(&data, &pairs, vec![reference]);
    let task = PreferenceTask::new(&data, pairs, objective, inputs, device::cpu()).unwrap();
    // TRL's policy is not its reference here, so the identity of step 0 does not hold.
    let task = started(task);
    let found = steps(model(&format!("{arch}-tiny-policy")), &task, training, Trainable::All);
    assert_curve(&found, &golden[curve], accumulation, &format!("{arch} {curve}"));
}

/// A task whose policy has already left the reference.
pub fn started<T: Task>(task: T) -> impl Task {
    Hooked { task, hook: |_: &[usize], figures: &mut StepTally| figures.step_zero = None }
}

#[test]
fn dpo_of_four_pairs() {
    for arch in ["llama", "qwen3"] {
        preference_curve(arch, "train_sigmoid_b4", "dpo", &training(4, 100_000), 1);
    }
}

#[test]
fn dpo_of_two_pairs() {
    preference_curve("llama", "train_sigmoid_b2", "dpo", &training(2, 100_000), 1);
}

#[test]
fn dpo_accumulated_over_micro_batches_of_one_pair() {
    preference_curve("llama", "train_sigmoid_b2_accum2", "dpo", &training(4, 1), 2);
    // The same batch whole: accumulation changes nothing.
    preference_curve("llama", "train_sigmoid_b2_accum2", "dpo", &training(4, 100_000), 2);
}

#[test]
fn ipo_of_four_pairs() {
    preference_curve("llama", "train_ipo_b4", "ipo", &training(4, 100_000), 1);
}

#[test]
fn clipping_weight_decay_and_cosine() {
    let training = TrainingPlan {
        max_grad_norm: 1.0,
        weight_decay: 0.01,
        schedule: Schedule::Cosine,
        warmup_steps: 2,
        ..training(4, 100_000)
    };
    preference_curve("llama", "train_sigmoid_b4_clip1_wd0.01_cosine_warmup2", "dpo", &training, 1);
}

#[test]
fn supervised_warm_up() {
    for arch in ["llama", "qwen3"] {
        let golden = golden(arch);
        let data = dataset(&golden);
        let task = SupervisedTask::new(&data, &["preference".to_string()]);
        let training = TrainingPlan { steps: 5, ..training(4, 100_000) };
        let found = steps(model(&format!("{arch}-tiny-policy")), &task, &training, Trainable::All);
        assert_curve(&found, &golden["sft_completion_only_b4"], 1, arch);
    }
}

#[test]
fn adapters() {
    for arch in ["llama", "qwen3"] {
        let golden = golden(arch);
        let data = dataset(&golden);
        let pairs = data.pairs("preference");
        let reference = logps(&model(&format!("{arch}-tiny-ref")), &data, &pairs);
        let objective = spo_core::objective::build("dpo", &Map::new()).unwrap();
        let inputs = PairInputs::new(&data, &pairs, vec![reference]);
        let task = started(PreferenceTask::new(&data, pairs, objective, inputs, device::cpu()).unwrap());
        let base = model(&format!("{arch}-tiny-policy"));
        let (adapted, _) = load_adapter(base, &fixtures().join(format!("{arch}-tiny-lora"))).unwrap();
        let curve = &golden["lora"]["train_sigmoid_b4_refmodel"];
        let training = TrainingPlan { steps: numbers(&curve["loss"]).len() as u64, ..training(4, 100_000) };
        assert_curve(&steps(adapted, &task, &training, Trainable::Adapters), curve, 1, arch);
    }
}

/// TRL's eight labelled answers: chosen and rejected of each row; the KL is estimated on each prompt with the answer of
/// the row before it.
fn unpaired_curve(arch: &str, curve: &str, objective: &str) {
    let golden = golden(arch);
    let data = dataset(&golden);
    let answers = data.answers("preference");
    let limit = golden["max_length"].as_u64().unwrap() as usize;
    let count = answers.len();
    let partner = (0..count).map(|row| (row + count - 1) % count).collect();
    let mut mismatched = Mismatched { partner, limit, reference: vec![] };
    let reference = model(&format!("{arch}-tiny-ref"));
    let score = |rows: Vec<(&[u32], &[u32])>| -> Vec<f64> {
        let groups: Vec<Group> =
            rows.into_iter().map(|(prompt, answer)| Group { prompt, answers: vec![answer] }).collect();
        let scored = reference.score(&groups, 100_000, &Default::default(), &mut |_| ());
        scored.iter().map(|answers| answers[0].iter().map(|logp| f64::from(*logp)).sum()).collect()
    };
    let rows = answers.iter().map(|row| {
        let example = &data.examples[row.example];
        (example.prompt.as_slice(), example.answers[row.answer].as_slice())
    });
    let own = score(rows.collect());
    mismatched.reference = score((0..count).map(|row| mismatched.row(&data, &answers, row)).collect());
    let options: Map<String, Value> = [("beta".to_string(), json!(0.1))].into_iter().collect();
    let objective = spo_core::objective::build_unpaired(objective, &options).unwrap();
    let kl = objective.needs_kl();
    // TRL's policy is not its reference here, so the identity of step 0 does not hold.
    let task = started(UnpairedTask::new(&data, answers, objective, own, Some(mismatched), device::cpu()).unwrap());
    let policy = || model(&format!("{arch}-tiny-policy"));
    // One micro-batch of everything, and micro-batches of one answer: the estimate of the KL is the batch's in both.
    for budget in [100_000, 1] {
        let training = TrainingPlan { steps: 3, ..training(8, budget) };
        let found = steps(policy(), &task, &training, Trainable::All);
        let expected = &golden[curve];
        assert_curve(&found, expected, 1, &format!("{arch} {curve}"));
        for (figures, log) in found.iter().zip(expected["log"].as_array().unwrap()) {
            let margin = log["rewards/chosen"].as_f64().unwrap() - log["rewards/rejected"].as_f64().unwrap();
            let ratios = figures.chosen_log_ratio.unwrap() - figures.rejected_log_ratio.unwrap();
            assert!((0.1 * ratios - margin).abs() < 2e-3, "{arch} {curve} {ratios} {margin}");
            if kl {
                // TRL's figure is β-free, as ours.
                let (found, expected) = (figures.kl.unwrap(), log["kl"].as_f64().unwrap());
                assert!((found - expected).abs() <= 2e-3, "{arch} {curve}: kl {found} expected {expected}");
            }
        }
    }
}

#[test]
fn kto_of_eight_answers() {
    for arch in ["llama", "qwen3"] {
        unpaired_curve(arch, "kto_b8", "kto");
    }
}

#[test]
fn apo_zero_of_eight_unpaired_answers() {
    for arch in ["llama", "qwen3"] {
        unpaired_curve(arch, "kto_apo_zero_unpaired_b8", "apo-zero-unpaired");
    }
}

#[test]
fn recomputed_blocks_give_the_same_bits() {
    let golden = golden("llama");
    let data = dataset(&golden);
    let task = SupervisedTask::new(&data, &["preference".to_string()]);
    let groups: Vec<Group> = (0..task.len()).map(|row| task.group(row)).collect();
    let batch = PackedBatch::new(&groups);
    let model = model("llama-tiny-policy");
    use spo_train::step::tape::Recompute;
    let run = |recompute| {
        let options = TapeOptions { recompute, trainable: Trainable::All, head: Default::default(), router_loss: 0.0 };
        let mut gradients = Gradients::default();
        differentiate(&model, &batch, &options, &mut gradients, |logps| Ok::<_, ()>(vec![-1.0; logps.len()])).unwrap();
        gradients
    };
    let (plain, blocks) = (run(Recompute::None), run(Recompute::Blocks));
    assert_eq!(plain.names().count(), 21);
    for name in plain.names() {
        let bits = |gradients: &Gradients| gradients.get(name).unwrap().into_data();
        assert_eq!(bits(&plain), bits(&blocks), "{name}");
    }
}

#[test]
fn updates_in_the_backward_pass_give_the_same_bits() {
    for (arch, recompute) in [("llama", Recompute::None), ("qwen3", Recompute::None), ("llama", Recompute::Blocks)] {
        let golden = golden(arch);
        let data = dataset(&golden);
        let task = SupervisedTask::new(&data, &["preference".to_string()]);
        let plain = TrainingPlan { weight_decay: 0.01, recompute, ..training(4, 100_000) };
        let in_backward = TrainingPlan { update_in_backward: true, tokens_per_micro_batch: 1, ..plain.clone() };
        let run = |training: &TrainingPlan| {
            let (mut memory, stop) = (Memory::default(), AtomicBool::new(false));
            let mut reporter = Reporter::new(std::env::temp_dir(), &mut memory, &stop);
            let phase = Phase {
                name: "curve",
                round: 0,
                training,
                trainable: Trainable::All,
                seed: 0,
                hold: None,
                probes: None,
                shards: 1,
            };
            let start =
                PhaseState::new(model(&format!("{arch}-tiny-policy")), training.optimizer(Trainable::All, 0, 0));
            let state = phase.run(start, &task, None, Stopping::never(), None, &mut reporter).unwrap();
            let mut weights = vec![];
            spo_model::parameters::for_each(&state.model, "", |parameter| {
                weights.push((parameter.path, parameter.value.into_data()));
            });
            let of_batch = |record: spo_train::events::sink::Record| match record.event {
                Event::Step(figures) => Some((figures.loss, figures.grad_norm, figures.tokens)),
                _ => None,
            };
            (weights, memory.0.into_iter().filter_map(of_batch).collect::<Vec<_>>())
        };
        let ((weights, batches), (expected_weights, expected_batches)) = (run(&in_backward), run(&plain));
        assert_eq!(batches.len(), 10);
        for (found, expected) in batches.iter().zip(&expected_batches) {
            assert_eq!((found.0, found.2), (expected.0, expected.2), "{arch}");
            assert!((found.1 / expected.1 - 1.0).abs() < 1e-9, "{arch}: norm {} expected {}", found.1, expected.1);
        }
        for ((name, found), (_, expected)) in weights.iter().zip(&expected_weights) {
            assert_eq!(found.as_bytes(), expected.as_bytes(), "{arch} {name}");
        }
    }
}

#[test]
fn a_value_that_is_not_finite_stops_the_run_and_names_the_rows() {
    let golden = golden("llama");
    let data = dataset(&golden);
    let task = SupervisedTask::new(&data, &["preference".to_string()]);
    for update_in_backward in [false, true] {
        let training = TrainingPlan { learning_rate: 1e38, update_in_backward, ..training(2, 100_000) };
        stops_at_the_second_step(&training, &task);
    }
}

#[track_caller]
fn stops_at_the_second_step(training: &TrainingPlan, task: &dyn Task) {
    let out = tempfile::tempdir().unwrap();
    let (mut memory, stop) = (Memory::default(), AtomicBool::new(false));
    let mut reporter = Reporter::new(out.path().into(), &mut memory, &stop);
    let phase = Phase {
        name: "blows up",
        round: 0,
        training,
        trainable: Trainable::All,
        seed: 0,
        hold: None,
        probes: None,
        shards: 1,
    };
    let error = phase
        .run(
            PhaseState::new(model("llama-tiny-policy"), training.optimizer(Trainable::All, 0, 0)),
            task,
            None,
            Stopping::never(),
            None,
            &mut reporter,
        )
        .unwrap_err();
    let spo_train::TrainError::NotFinite { step, saved, .. } = &error else { panic!("{error}") };
    assert_eq!(*step, 2, "the first step's weights are already out of range");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(saved).unwrap()).unwrap();
    assert_eq!(report["ids"], json!(["row 2", "row 3"]));
    assert!(error.to_string().contains("not-finite.json"));
}

#[test]
fn the_data_of_the_fixture_load_as_rows() {
    // Guards the fixture itself: the rows given as messages tokenise to TRL's ids.
    let golden = golden("llama");
    let tokenizer = spo_data::Tokenizer::from_dir(&fixtures().join("llama-tiny-policy")).unwrap();
    let rows: Vec<String> = golden["rows"].as_array().unwrap().iter().map(Value::to_string).collect();
    let loaded = spo_data::load_bytes(
        "rows.jsonl",
        rows.join("\n").as_bytes(),
        &DataSpec::default(),
        &serde_json::from_value(json!({ "max-length": 4096 })).unwrap(),
        &tokenizer,
    )
    .unwrap();
    for (example, row) in loaded.examples.iter().zip(golden["tokenised"].as_array().unwrap()) {
        assert_eq!(json!(example.prompt), row["prompt_ids"]);
        assert_eq!(json!(example.answers[0]), row["chosen_ids"]);
    }
}
