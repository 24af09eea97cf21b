//! Short runs with each way of training adapters, and what they leave on disk.

use crate::built_in::{TEXT, assets, tables};
use serde_json::Value;
use spo_data::Group;
use spo_model::export::{GgufType, ModelFiles, save_gguf};
use spo_model::lora::load_adapter;
use spo_model::{CausalLm, device};
use spo_train::config::RunSpec;
use spo_train::events::sink::Memory;
use spo_train::events::{Event, StepFigures};
use spo_train::forecast::Forecast;
use spo_train::{Prepared, TrainError, prepare, run};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const ROUNDS: [&str; 2] = ["round-1-honesty", "round-2-helpfulness"];

fn spec(out: &Path, lora: &str) -> RunSpec {
    let text = format!(
        r#"schema = 1
seed = 3
out = {out:?}
{tables}{TEXT}[training]
steps = 3
pairs-per-step = 6
learning-rate = 5e-3
warmup-steps = 0
[[rounds]]
dimension = "honesty"
[[rounds]]
dimension = "helpfulness"
[evaluation]
bootstrap-resamples = 40
kl-samples = 0
samples = 0
[lora]
rank = 2
alpha = 4.0
{lora}"#,
        tables = tables("cpu", 60, 30),
    );
    RunSpec::from_str("run.toml", &text).unwrap()
}

fn prepared(spec: &RunSpec) -> Prepared {
    prepare(spec, &mut Memory::default()).unwrap()
}

struct Done {
    dir: tempfile::TempDir,
    events: Vec<Event>,
    prepared: Prepared,
}

fn done(lora: &str) -> Done {
    changed(lora, &[]).unwrap()
}

/// A run with changes of its run file.
fn changed(lora: &str, changes: &[&str]) -> Result<Done, TrainError> {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(&dir.path().join("out"), lora);
    changes.iter().for_each(|change| spec.apply_set(change).unwrap());
    let mut seen = Memory::default();
    run(prepared(&spec), &mut seen, &AtomicBool::new(false))?;
    Ok(Done { dir, events: seen.0.into_iter().map(|record| record.event).collect(), prepared: prepared(&spec) })
}

impl Done {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("out").join(name)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }

    fn steps(&self) -> Vec<StepFigures> {
        let figures = |event: &Event| match event {
            Event::Step(figures) => Some(figures.clone()),
            _ => None,
        };
        self.events.iter().filter_map(figures).collect()
    }

    fn first_loss(&self, phase: &str) -> f64 {
        self.steps().into_iter().find(|step| step.phase == phase).unwrap().loss
    }

    fn drifts(&self) -> (f64, Option<f64>) {
        let drift = |event: &Event| match event {
            Event::ModelExported { drift, quantisation_drift, .. } => Some((*drift, *quantisation_drift)),
            _ => None,
        };
        self.events.iter().find_map(drift).unwrap()
    }

    fn score(&self, model: &CausalLm) -> Vec<f64> {
        let examples = self.prepared.held_out.dataset.examples.iter().take(6);
        let groups: Vec<Group> = examples
            .map(|e| Group { prompt: &e.prompt, answers: e.answers.iter().map(|a| a.as_slice()).collect() })
            .collect();
        let scored = model.score(&groups, 2048, &Default::default(), &mut |_| ());
        scored.iter().flatten().map(|logps| logps.iter().map(|logp| f64::from(*logp)).sum()).collect()
    }

    fn policy(&self, name: &str) -> CausalLm {
        let base = CausalLm::from_dir(&assets().join("stories260K"), None, &device::cpu()).unwrap();
        load_adapter(base, &self.path(&format!("policies/{name}"))).unwrap().0
    }

    /// The exported model gives the last policy's log-probs, and the manifests say how close.
    fn check_artefacts(&self) {
        let exported = CausalLm::from_dir(&self.path("model"), None, &device::cpu()).unwrap();
        let difference = largest(&self.score(&exported), &self.score(&self.policy(ROUNDS[1])));
        assert!(difference < 1e-2, "{difference}");
        for name in ROUNDS {
            let manifest = self.json(&format!("policies/{name}/manifest.json"));
            assert_eq!(manifest["format"], "peft");
            assert_eq!(manifest["policy"], name);
            assert_eq!(manifest["parity"]["rows"], 8);
            assert_eq!(manifest["parity"]["largest-difference"], 0.0);
            assert!(manifest["base"]["path"].as_str().unwrap().ends_with("stories260K"));
        }
        let manifest = self.json("model/manifest.json");
        assert_eq!(manifest["format"], "hf");
        assert!((manifest["parity"]["largest-difference"].as_f64().unwrap() - self.drifts().0).abs() < 1e-12);
        assert!(self.drifts().0 < 1e-2);
    }
}

fn largest(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn rounds_continue_or_stack() {
    let continued = done("");
    let stacked = done("rounds = \"stack\"");
    for (done, rank, alpha) in [(&continued, 2, 4), (&stacked, 4, 8)] {
        done.check_artefacts();
        let config = |name: &str| done.json(&format!("policies/{name}/adapter_config.json"));
        assert_eq!((&config(ROUNDS[0])["r"], &config(ROUNDS[0])["lora_alpha"]), (&2.into(), &4.into()));
        assert_eq!((&config(ROUNDS[1])["r"], &config(ROUNDS[1])["lora_alpha"]), (&rank.into(), &alpha.into()));
        assert_eq!(done.drifts().1, None);
    }
    // The first rounds are the same; a second one starts at its reference either way.
    assert_eq!(continued.first_loss(ROUNDS[0]).to_bits(), stacked.first_loss(ROUNDS[0]).to_bits());
    assert_eq!(continued.score(&continued.policy(ROUNDS[0])), stacked.score(&stacked.policy(ROUNDS[0])));
    let starts = [&continued, &stacked].map(|done| done.first_loss(ROUNDS[1]));
    assert!((starts[0] - starts[1]).abs() < 1e-5, "{starts:?}");
    let ends = [&continued, &stacked].map(|done| done.score(&done.policy(ROUNDS[1])));
    assert!(largest(&ends[0], &ends[1]) > 1e-3, "a fresh adapter learns otherwise");
}

#[test]
fn a_run_goes_on_from_an_adapter() {
    let before = done("");
    let learnt = before.score(&before.policy(ROUNDS[1]));
    let start = format!("start = {:?}", before.path("policies").join(ROUNDS[1]));
    for (rounds, ranks) in [("continue", [2, 2]), ("stack", [4, 6])] {
        let lora = format!("{start}\nrounds = {rounds:?}");
        let after = changed(&lora, &["training.learning-rate=1e-12"]).unwrap();
        after.check_artefacts();
        for (name, rank) in ROUNDS.iter().zip(ranks) {
            assert_eq!(after.json(&format!("policies/{name}/adapter_config.json"))["r"], rank, "{rounds}");
            assert!(largest(&after.score(&after.policy(name)), &learnt) < 1e-4, "{rounds}: it is where it was");
        }
        assert!((after.first_loss(ROUNDS[0]) - std::f64::consts::LN_2).abs() < 1e-6, "it is its own reference");
        let trained = done(&lora);
        assert!(largest(&trained.score(&trained.policy(ROUNDS[0])), &learnt) > 1e-3, "{rounds}: and learns");
    }
    let error = changed(&start, &["lora.rank=3"]).err().unwrap().to_string();
    let expected = "layers.0.mlp.down_proj: found LoRA of rank 2 and scale 2, expected LoRA of rank 3";
    assert!(error.contains("adapter_config.json") && error.contains(expected), "{error}");
    let error = changed(&start, &["lora.modules-to-save=[\"norm\"]"]).err().unwrap().to_string();
    assert!(error.contains("modules_to_save: found [], expected [model.norm]"), "{error}");
}

#[test]
fn dora_learns_magnitudes_and_saved_modules_are_kept() {
    let done = done(
        "dora = true\nrslora = true\ntargets = [\"q_proj\", \"layers.[0-2].mlp.*\"]\nmodules-to-save = [\"norm\"]",
    );
    done.check_artefacts();
    let config = done.json("policies/round-2-helpfulness/adapter_config.json");
    assert_eq!((&config["use_dora"], &config["use_rslora"]), (&true.into(), &true.into()));
    assert_eq!(config["modules_to_save"], serde_json::json!(["model.norm"]));
    // Not every layer's up_proj has an adapter, so the names are whole.
    let targets = config["target_modules"].as_array().unwrap();
    assert_eq!(targets.len(), 5 + 9);
    assert!(targets.contains(&"model.layers.2.mlp.up_proj".into()));
    let magnitude = |name: &str| {
        let model = done.policy(name);
        let lora = model.layers[0].mlp.as_ref().unwrap().up_proj.as_ref().unwrap().lora.as_ref().unwrap();
        let values: Vec<f64> = lora.magnitude.as_ref().unwrap().val().into_data().iter::<f64>().collect();
        let norm: Vec<f64> = model.norm.weight.val().into_data().iter::<f64>().collect();
        (values, norm)
    };
    let (first, second) = (magnitude(ROUNDS[0]), magnitude(ROUNDS[1]));
    assert!(largest(&first.0, &second.0) > 1e-4 && largest(&first.1, &second.1) > 1e-4);
}

#[test]
fn dropout_is_a_function_of_seed_step_and_row() {
    let losses = |more: &str| {
        let done = done(&format!("dropout = 0.3\n{more}"));
        done.steps().iter().map(|step| step.loss).collect::<Vec<_>>()
    };
    let (once, again) = (losses(""), losses(""));
    assert_eq!(once, again);
    // Other micro-batches drop the same inputs: only the order of sums differs.
    let split = changed("dropout = 0.3", &["training.tokens-per-micro-batch=1"]).unwrap();
    let split: Vec<f64> = split.steps().iter().map(|step| step.loss).collect();
    assert!(largest(&once, &split) < 1e-4, "{once:?} {split:?}");
    let plain: Vec<f64> = done("").steps().iter().map(|step| step.loss).collect();
    assert!(largest(&once, &plain) > 1e-3, "it has an effect");
}

#[test]
fn a_quantised_base_is_trained_on_and_merged_into_the_whole_one() {
    for (bits, most) in [("8-bit", 2.0), ("4-bit", 20.0)] {
        let done = done(&format!("quantised-base = \"{bits}\"\nrounds = \"stack\""));
        let (merge, quantisation) = done.drifts();
        let quantisation = quantisation.unwrap();
        assert!(merge < 1e-2, "{bits}: {merge}");
        assert!(quantisation > 1e-3 && quantisation < most, "{bits}: {quantisation}");
        let manifest = done.json("model/manifest.json");
        assert_eq!(manifest["base"]["quantised"], bits);
        assert!((manifest["quantisation-difference"].as_f64().unwrap() - quantisation).abs() < 1e-12);
        // Untouched weights are those of the file, to the bit.
        let read =
            |dir: &Path| CausalLm::from_dir(dir, None, &device::cpu()).unwrap().embed_tokens.weight.val().into_data();
        assert_eq!(read(&assets().join("stories260K")), read(&done.path("model")));
        assert!(done.steps().iter().all(|step| step.grad_norm > 0.0));
    }
}

/// A GGUF file of the built-in model: 8 bits a value where rows fill blocks, 16 elsewhere.
fn blocks_of_the_built_in_model(dir: &Path) -> PathBuf {
    let (stories, path) = (assets().join("stories260K"), dir.join("model.gguf"));
    let model = CausalLm::from_dir(&stories, None, &device::cpu()).unwrap();
    save_gguf(&model, &ModelFiles::from_dir(&stories).unwrap(), "stories", GgufType::Q8, &path).unwrap();
    path
}

#[test]
fn a_base_in_the_blocks_of_its_file_trains_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let model = format!("model.path={:?}", blocks_of_the_built_in_model(dir.path()));
    let of = |base: &str| changed(&format!("dora = true\nquantised-base = \"{base}\""), &[&model]).unwrap();
    let (decoded, kept) = (of("none"), of("as-stored"));
    let losses = |done: &Done| done.steps().iter().map(|step| step.loss.to_bits()).collect::<Vec<_>>();
    assert!(losses(&kept).len() > 4);
    assert_eq!(losses(&kept), losses(&decoded));
    let weights = |done: &Done| std::fs::read(done.path("model/model.safetensors")).unwrap();
    assert!(weights(&kept) == weights(&decoded), "adapters and merged weights are the same");
    assert_eq!(kept.drifts().1, Some(0.0));
    assert_eq!(kept.json("model/manifest.json")["base"]["quantised"], "as-stored");
    let memory = |done: &Done| Forecast::of(&done.prepared).unwrap().memory;
    let (dense, blocks) = (memory(&decoded), memory(&kept));
    assert_eq!(dense.kept.as_deref(), Some("35 projections, stored as F16, Q8_0, decoded to f32"));
    assert_eq!(blocks.kept.as_deref(), Some("35 projections as stored: F16, Q8_0; the rest as f32"));
    assert!(blocks.phases[0].weights < dense.phases[0].weights);
}

/// On the device that `SPO_TEST_DEVICE` names, against the decoded base on the CPU.
#[test]
fn a_base_in_the_blocks_of_its_file_trains_on_the_device() {
    let (dir, device) = (tempfile::tempdir().unwrap(), std::env::var("SPO_TEST_DEVICE").unwrap_or("cpu".into()));
    let model = format!("model.path={:?}", blocks_of_the_built_in_model(dir.path()));
    let of = |base: &str, device: &str| {
        let changes =
            [&model, &format!("model.device={device:?}"), "training.steps=1", "data.0.limit=24", "data.1.limit=6"];
        changed(&format!("quantised-base = \"{base}\""), &changes.map(AsRef::as_ref)).unwrap()
    };
    let (decoded, kept) = (of("none", "cpu"), of("as-stored", &device));
    let losses = |done: &Done| done.steps().iter().map(|step| step.loss).collect::<Vec<_>>();
    let (found, expected) = (losses(&kept), losses(&decoded));
    assert_eq!(found.len(), 2);
    assert!(
        found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-4),
        "{found:?} {expected:?}"
    );
    // 16-bit floats are numbers on a card.
    let projections =
        if device == "cpu" { "35 projections as stored: F16, Q8_0" } else { "30 projections as stored: Q8_0" };
    let said = Forecast::of(&kept.prepared).unwrap().memory.kept.unwrap();
    assert_eq!(said, format!("{projections}; the rest as f32"));
}

#[test]
fn blocks_are_kept_where_there_are_some() {
    let dir = tempfile::tempdir().unwrap();
    let error = prepare(&spec(dir.path(), "quantised-base = \"as-stored\""), &mut Memory::default()).unwrap_err();
    assert!(error.to_string().contains("stories260K stores no projection in blocks or 16-bit floats"), "{error}");
    assert!(error.hint().unwrap().contains("quantise the weights anew"));
}

#[test]
fn names_are_checked_before_anything_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |lora: &str| {
        let error = prepare(&spec(dir.path(), lora), &mut Memory::default()).unwrap_err();
        assert!(matches!(error, TrainError::Config(_)), "{error}");
        error.to_string()
    };
    let found = refused("targets = [\"query\"]");
    assert!(found.contains("run.toml:") && found.contains("no projection is called `query`"), "{found}");
    assert!(refused("targets = \"q_proj\"").contains("`q_proj`"));
    assert!(refused("modules-to-save = [\"lm_head\"]").contains("shares the embedding's weight"));
    assert!(refused("dora = true\nrounds = \"stack\"").contains("do not add up"));
    assert!(refused("start = \"nowhere\"").contains("nowhere holds no adapter_config.json"));
    let out_of_range = std::panic::catch_unwind(|| spec(Path::new("out"), "dropout = 1.0"));
    assert!(out_of_range.is_err());
}
