//! The whole job in miniature: warm-up, two rounds and a control, on a model of 260,000 parameters.
//! `SPO_TEST_DEVICE` names the device (`cpu` if unset), as in a run file.

use crate::built_in::{TEXT, tables};
use spo_core::logprob::HeadOptions;
use spo_data::Group;
use spo_eval::{DimensionScore, RunSummary, ScoreKind, Subset};
use spo_model::decoder::blocks::BlockBits;
use spo_model::load::{LoadOptions, Storage};
use spo_model::{CausalLm, device};
use spo_train::config::RunSpec;
use spo_train::events::sink::{Memory, read_events};
use spo_train::events::{Event, StepFigures};
use spo_train::{Prepared, TrainError, prepare, run};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const POLICIES: [&str; 4] = ["warmup", "round-1-honesty", "round-2-helpfulness", "round-2-helpfulness.sequential-dpo"];

fn device_name() -> String {
    std::env::var("SPO_TEST_DEVICE").unwrap_or_else(|_| "cpu".into())
}

/// The device to test on. One that is asked for and cannot be opened fails the test.
fn test_device() -> String {
    let name = device_name();
    device::open(&name).unwrap_or_else(|error| panic!("SPO_TEST_DEVICE={name}: {error}"));
    name
}

fn spec(dir: &Path, device: &str, more: &str) -> RunSpec {
    // A software driver takes minutes for what a processor does in seconds: there the model has two blocks.
    let device_test = device_name() != "cpu";
    let (pairs, held_out, per_step, tokens) = if device_test { (12, 6, 2, 2) } else { (60, 40, 8, 8) };
    let text = format!(
        r#"schema = 1
seed = 3
out = "out"
{tables}{TEXT}[warmup]
dimensions = ["honesty", "helpfulness"]
steps = 4
learning-rate = 1e-3
[training]
steps = 4
pairs-per-step = {per_step}
learning-rate = 5e-4
warmup-steps = 1
[[rounds]]
dimension = "honesty"
[[rounds]]
dimension = "helpfulness"
[[rounds.controls]]
name = "sequential-dpo"
lambda = 0.0
[evaluation]
bootstrap-resamples = 100
kl-samples = 4
kl-max-new-tokens = {tokens}
samples = 1
{more}"#,
        tables = tables(device, pairs, held_out),
    );
    let file = dir.join("run.toml");
    std::fs::write(&file, text).unwrap();
    let mut spec = RunSpec::from_file(&file).unwrap();
    if device_test {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/trl/llama-tiny-policy");
        spec.apply_set(&format!("model.path={model:?}")).unwrap();
        spec.apply_set("text.template=plain").unwrap();
    }
    spec
}

fn prepared(spec: &RunSpec) -> Prepared {
    prepare(spec, &mut Memory::default()).unwrap()
}

struct Finished {
    out: PathBuf,
    events: Vec<Event>,
    summary: RunSummary,
}

/// Runs to the end. The events are those of the file, one for each that the sink saw.
fn finished(spec: &RunSpec) -> Finished {
    let prepared = prepared(spec);
    let (out, mut seen) = (prepared.plan.out.clone(), Memory::default());
    let summary = run(prepared, &mut seen, &AtomicBool::new(false)).unwrap();
    let written = read_events(&out.join("events.jsonl")).unwrap();
    seen.0.retain(|record| !matches!(record.event, Event::Scoring { .. }));
    assert!(written.iter().map(|record| kind(&record.event)).eq(seen.0.iter().map(|record| kind(&record.event))));
    Finished { out, events: written.into_iter().map(|record| record.event).collect(), summary }
}

fn kind(event: &Event) -> std::mem::Discriminant<Event> {
    std::mem::discriminant(event)
}

impl Finished {
    fn steps(&self) -> impl Iterator<Item = &StepFigures> {
        self.events.iter().filter_map(|event| match event {
            Event::Step(figures) => Some(figures),
            _ => None,
        })
    }

    fn first(&self, phase: &str) -> &StepFigures {
        self.steps().find(|step| step.phase == phase).unwrap()
    }

    fn drifts(&self) -> Vec<(&str, f64)> {
        let drift = |event: &'_ Event| match event {
            Event::PolicySaved { drift, .. } => Some(*drift),
            _ => None,
        };
        let saved = self.events.iter().filter(|event| drift(event).is_some());
        POLICIES.into_iter().zip(saved.filter_map(drift)).collect()
    }
}

/// Log-probs of every token of the first held-out answers.
fn logps(model: &CausalLm, prepared: &Prepared) -> Vec<f32> {
    let examples = prepared.held_out.dataset.examples.iter().take(6);
    let groups: Vec<Group> = examples
        .map(|example| Group {
            prompt: &example.prompt,
            answers: example.answers.iter().map(|answer| answer.as_slice()).collect(),
        })
        .collect();
    let scored = model.score(&groups, 2048, &HeadOptions::default(), &mut |_| ());
    scored.into_iter().flatten().flatten().collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn two_rounds_and_a_control() {
    let device = test_device();
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(dir.path(), &device, "");
    let done = finished(&spec);

    let steps: Vec<(&str, u64)> = done.steps().map(|step| (step.phase.as_str(), step.step)).collect();
    let expected: Vec<(&str, u64)> = POLICIES.iter().flat_map(|phase| (1..=4).map(|step| (*phase, step))).collect();
    assert_eq!(steps, expected);
    assert!(done.steps().all(|step| step.loss.is_finite() && step.grad_norm > 0.0));

    // Before its first step a policy is its reference: DPO, and SPO that holds nothing, start at ln 2.
    for phase in ["round-1-honesty", "round-2-helpfulness.sequential-dpo"] {
        let figures = done.first(phase);
        assert!((figures.loss - 2f64.ln()).abs() < 1e-3, "{phase}: {}", figures.loss);
        assert!(figures.chosen_log_ratio.unwrap().abs() < 1e-2, "{phase}: {figures:?}");
    }
    // SPO starts at the mean of softplus(c), at least the softplus of the mean.
    let figures = done.first("round-2-helpfulness");
    let margin_offset = figures.margin_offset.unwrap();
    assert_ne!(margin_offset, 0.0);
    assert!(figures.loss >= margin_offset.exp().ln_1p() - 1e-4, "{figures:?}");

    let allowed = if device == "cpu" { 0.0 } else { 1e-2 };
    let drifts = done.drifts();
    assert_eq!(drifts.len(), POLICIES.len());
    assert!(drifts.iter().all(|(_, drift)| *drift <= allowed), "{drifts:?}");
    for (kind, found) in [
        ("evaluated", done.events.iter().filter(|event| matches!(event, Event::Evaluated { .. })).count()),
        ("sampled", done.events.iter().filter(|event| matches!(event, Event::Sampled(_))).count()),
    ] {
        assert!(found > 0, "{kind}");
    }
    // Round 1 starts from π_0; each arm of round 2 is measured from π_0 and from π_1.
    assert_eq!(done.events.iter().filter(|event| matches!(event, Event::KlEstimated(_))).count(), 5);
    assert!(matches!(done.events.last(), Some(Event::RunFinished { model, .. }) if *model == done.out.join("model")));

    let read = |name: &str| std::fs::read_to_string(done.out.join(name)).unwrap();
    assert!(read("report.md").contains("round-2-helpfulness.sequential-dpo"));
    assert!(read("report.html").contains("round-2-helpfulness.sequential-dpo"));
    let summary: RunSummary = serde_json::from_str(&read("summary.json")).unwrap();
    assert_eq!(summary.lineage, done.summary.lineage);
    assert_eq!(summary.samples, done.summary.samples);
    let policies = summary.rounds.iter().map(|round| (round.policy.as_str(), round.control));
    assert!(policies.eq([(POLICIES[1], false), (POLICIES[2], false), (POLICIES[3], true)]));

    let prepared = prepared(&spec);
    let load = |name: &str| CausalLm::from_dir(&done.out.join(name), None, &prepared.device).unwrap();
    let exported = logps(&load("model"), &prepared);
    let last = logps(&load("policies/round-2-helpfulness"), &prepared);
    let control = logps(&load("policies/round-2-helpfulness.sequential-dpo"), &prepared);
    assert!(largest_difference(&exported, &last) <= allowed as f32);
    assert!(largest_difference(&exported, &control) > 1e-3, "the control is another policy");

    let again = run(prepared, &mut Memory::default(), &AtomicBool::new(false));
    assert!(matches!(again, Err(TrainError::OutExists { .. })));
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let figures = |done: &Finished| -> Vec<[u64; 2]> {
        done.steps().map(|step| [step.loss.to_bits(), step.grad_norm.to_bits()]).collect()
    };
    let runs = [(), ()].map(|()| {
        let dir = tempfile::tempdir().unwrap();
        figures(&finished(&spec(dir.path(), "cpu", "")))
    });
    assert_eq!(runs[0], runs[1]);
}

#[test]
fn the_running_policy_is_evaluated_without_being_changed() {
    let dir = tempfile::tempdir().unwrap();
    let plain = spec(dir.path(), "cpu", "");
    let mut looked = plain.clone();
    looked.apply_set("training.eval-every=3").unwrap();
    looked.apply_set("rounds.0.eval-every=1").unwrap();
    looked.apply_set(&format!("out={:?}", dir.path().join("looked"))).unwrap();
    let (plain, looked) = (finished(&plain), finished(&looked));
    let losses = |done: &Finished| done.steps().map(|step| step.loss.to_bits()).collect::<Vec<_>>();
    assert_eq!(losses(&plain), losses(&looked));

    let found = |phase: &str| {
        let of_phase = looked.events.iter().filter_map(|event| match event {
            Event::HeldOut(found) if found.phase == phase => Some(found.clone()),
            _ => None,
        });
        of_phase.collect::<Vec<_>>()
    };
    let steps = |phase: &str| found(phase).iter().map(|found| found.step).collect::<Vec<_>>();
    assert_eq!(POLICIES.map(steps), [vec![3, 4], vec![1, 2, 3, 4], vec![3, 4], vec![3, 4]]);
    assert!(found("warmup").iter().all(|found| found.dimensions.is_empty() && found.loss > 0.0));
    // The first step's learning rate is 0: the policy is still its reference.
    let first = &found("round-1-honesty")[0];
    assert!((first.loss - 2f64.ln()).abs() < 1e-5, "{first:?}");

    // After the last step it is the policy that is evaluated at the end of the round.
    for phase in &POLICIES[1..] {
        let scores = looked.events.iter().find_map(|event| match event {
            Event::Evaluated { policy, scores, .. } if policy == phase => Some(scores),
            _ => None,
        });
        for dimension in &found(phase).last().unwrap().dimensions {
            let at_end = |score: &&DimensionScore| score.dimension == dimension.dimension;
            let score = scores.unwrap().iter().find(at_end).unwrap();
            let tally = score.tally(Subset::All).unwrap();
            assert_eq!(score.kind, ScoreKind::LogRatio);
            assert_eq!(dimension.pairs as u64, tally.pairs as u64);
            assert!((dimension.margin - tally.mean_margin).abs() < 1e-4, "{phase}: {dimension:?} {tally:?}");
            assert!(
                (dimension.margin - dimension.chosen_log_ratio.unwrap() + dimension.rejected_log_ratio.unwrap()).abs()
                    < 1e-9
            );
        }
    }
}

#[test]
fn adapters_are_trained_and_merged() {
    let device = test_device();
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(dir.path(), &device, "[lora]\nrank = 4\n");
    let done = finished(&spec);
    let trained = done.events.iter().find_map(|event| match event {
        Event::RunStarted { parameters, trainable, .. } => Some((*parameters, *trainable)),
        _ => None,
    });
    assert!(trained.is_some_and(|(parameters, trainable)| trainable > 0 && trainable * 2 < parameters));

    let adapter = done.out.join("policies/round-2-helpfulness");
    assert!(adapter.join("adapter_model.safetensors").exists());
    let prepared = prepared(&spec);
    let load = |dir: &Path| CausalLm::from_dir(dir, None, &prepared.device).unwrap();
    let merged = logps(&load(&done.out.join("model")), &prepared);
    let base = load(&spec.sections().model.path);
    let start = logps(&base, &prepared);
    let (adapted, _) = spo_model::lora::load_adapter(base, &adapter).unwrap();
    assert!(largest_difference(&merged, &logps(&adapted, &prepared)) < 1e-3);
    assert!(largest_difference(&merged, &start) > 1e-3, "training changed nothing");
}

#[test]
fn a_quantised_base_is_the_same_on_every_device() {
    let device = test_device();
    let dir = tempfile::tempdir().unwrap();
    let prepared_here = prepared(&spec(dir.path(), &device, ""));
    for (bits, most) in [(BlockBits::Eight, 1.0), (BlockBits::Four, 10.0)] {
        let load = |device: &_, blocks: Option<BlockBits>| {
            let options = LoadOptions { storage: Some(Storage::F32), blocks: blocks.map(Into::into) };
            CausalLm::open(&spec(dir.path(), "cpu", "").sections().model.path, options, device).unwrap()
        };
        let here = logps(&load(&prepared_here.device, Some(bits)), &prepared_here);
        let cpu = logps(&load(&device::cpu(), Some(bits)), &prepared_here);
        assert!(largest_difference(&here, &cpu) < 1e-3, "{bits:?}");
        let off = largest_difference(&cpu, &logps(&load(&device::cpu(), None), &prepared_here));
        assert!(off > 1e-4 && off < most, "{bits:?} is off by {off}");
    }
    let done = finished(&spec(dir.path(), &device, "[lora]\nrank = 4\nquantised-base = \"4-bit\"\n"));
    assert!(done.out.join("model/model.safetensors").exists());
}

#[test]
fn a_stop_ends_the_run_and_keeps_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(dir.path(), "cpu", "");
    let stopped = run(prepared(&spec), &mut Memory::default(), &AtomicBool::new(true));
    assert!(matches!(stopped, Err(TrainError::Interrupted { .. })));
    let out = prepared(&spec).plan.out;
    assert!(out.join("plan.json").exists());
    assert!(!read_events(&out.join("events.jsonl")).unwrap().is_empty());
    assert!(!out.join("model").exists());
}
