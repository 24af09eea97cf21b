//! Conditional adapters in runs: what they leave, resumption to the bit, warm starts, fixed weights, and what is refused.

use crate::broken_off::goes_on_bit_for_bit;
use crate::built_in::{self, TEXT, tables, written};
use serde_json::Value;
use spo_core::logprob::HeadOptions;
use spo_data::Group;
use spo_eval::FrontSummary;
use spo_model::lora::{load_adapter, merge_adapter_at};
use spo_model::{CausalLm, device};
use spo_train::config::RunSpec;
use spo_train::events::Event;
use spo_train::events::sink::Memory;
use spo_train::{TrainError, prepare, run};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const ROUND: &str = "round-1-honesty-helpfulness";

fn text(out: &Path, lora: &str, round: &str) -> String {
    format!(
        r#"schema = 1
seed = 3
out = {out:?}
{tables}{TEXT}[training]
steps = 4
pairs-per-step = 6
learning-rate = 5e-3
warmup-steps = 0
eval-every = 2
[[rounds]]
dimension = ["honesty", "helpfulness"]
{round}
[evaluation]
bootstrap-resamples = 40
kl-samples = 2
kl-max-new-tokens = 4
samples = 0
[checkpoints]
every-steps = 1
[lora]
{lora}"#,
        tables = tables("cpu", 60, 30),
    )
}

const CONDITION: &str = "condition = \"weights\"\n";

fn spec(out: &Path, lora: &str, round: &str) -> RunSpec {
    written(out.parent().unwrap(), &text(out, lora, round))
}

struct Done {
    _dir: tempfile::TempDir,
    out: PathBuf,
    events: Vec<Event>,
}

fn done(lora: &str, round: &str) -> Result<Done, TrainError> {
    let dir = tempfile::tempdir().unwrap();
    let (out, mut seen) = (dir.path().join("out"), Memory::default());
    let prepared = prepare(&spec(&out, lora, round), &mut Memory::default())?;
    run(prepared, &mut seen, &AtomicBool::new(false))?;
    Ok(Done { out, _dir: dir, events: seen.0.into_iter().map(|record| record.event).collect() })
}

fn fronts(events: &[Event]) -> Vec<&FrontSummary> {
    events.iter().filter_map(|event| if let Event::Front(front) = event { Some(front) } else { None }).collect()
}

fn base() -> CausalLm {
    CausalLm::open(&built_in::assets().join("stories260K"), Default::default(), &device::cpu()).unwrap()
}

fn logps(model: &CausalLm) -> Vec<f64> {
    let answers = [[10u32, 20, 30, 40], [70, 60, 50, 90]];
    let group = Group { prompt: &[1, 11, 12], answers: answers.iter().map(|answer| &answer[..]).collect() };
    let scored = model.score(&[group], 512, &HeadOptions::default(), &mut |_| ());
    scored[0].iter().map(|logps| logps.iter().map(|logp| f64::from(*logp)).sum()).collect()
}

#[test]
fn one_run_gives_the_whole_front() {
    let done = done(CONDITION, "[[rounds.controls]]\nname = \"ipo\"\nobjective = \"ipo\"\n").unwrap();
    let fronts = fronts(&done.events);
    assert_eq!(fronts.iter().map(|front| front.policy.as_str()).collect::<Vec<_>>(), [ROUND, &format!("{ROUND}.ipo")]);
    let front = fronts[0];
    assert_eq!(
        (front.dimensions.as_slice(), front.points.len()),
        (&["honesty", "helpfulness"].map(String::from)[..], 11)
    );
    assert!(front.hypervolume > 0.0 && front.interval.0 <= front.hypervolume && front.hypervolume <= front.interval.1);
    assert!(front.points.iter().all(|point| point.accuracy.iter().all(|share| (0.0..=1.0).contains(share))));
    // The loss of the first step is Σ wₖ N / Nₖ · ln 2 over its pairs; the run checks it against the theory.
    assert!(done.events.iter().any(|event| matches!(event, Event::HeldOut(_))));

    // Report, page and JSON.
    let read = |name: &str| std::fs::read_to_string(done.out.join(name)).unwrap();
    assert!(read("report.md").contains("## Front") && read("report.html").contains("Front of round-1"));
    let summary: Value = serde_json::from_str(&read("summary.json")).unwrap();
    assert_eq!(summary["fronts"][0]["points"].as_array().unwrap().len(), 11);
    assert_eq!(summary["model"]["method"], "conditional LoRA rank 4 + 4");

    // The policy stands in files of its own, and every point of it is a merged model.
    let policy = done.out.join("policies").join(ROUND);
    assert!(policy.join("front_config.json").is_file() && !policy.join("adapter_config.json").exists());
    let (loaded, found) = load_adapter(base(), &policy).unwrap();
    assert_eq!((found.rank, found.alpha, found.scale()), (4, 8.0, 2.0));
    for weights in [[1.0, 0.0], [0.3, 0.7]] {
        let conditioned = logps(&loaded.clone().with_weights(&weights));
        let merged = logps(&merge_adapter_at(base(), &policy, &weights).unwrap());
        let largest = conditioned.iter().zip(&merged).map(|(a, b)| ((a - b) / a).abs()).fold(0.0, f64::max);
        assert!(largest < 1e-6, "{largest}");
    }
    assert_ne!(logps(&loaded.clone().with_weights(&[1.0, 0.0])), logps(&loaded.clone().with_weights(&[0.0, 1.0])));
    // The exported model is the point in the middle.
    let exported = CausalLm::open(&done.out.join("model"), Default::default(), &device::cpu()).unwrap();
    let (found, expected) = (logps(&exported), logps(&loaded));
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?} {expected:?}");
}

#[test]
fn a_round_of_fixed_weights_is_weighted_preference_optimisation() {
    let done = done("rank = 2\n", "dimension-weights = { honesty = 0.7, helpfulness = 0.3 }\n").unwrap();
    assert!(fronts(&done.events).is_empty());
    assert!(done.out.join("policies").join(ROUND).join("adapter_config.json").is_file());
    let read = std::fs::read_to_string(done.out.join("plan.json")).unwrap();
    let plan: Value = serde_json::from_str(&read).unwrap();
    assert_eq!(plan["rounds"][0]["dimension-weights"]["honesty"], 0.7);
    assert_eq!(plan["rounds"][0]["front"], serde_json::json!(["honesty", "helpfulness"]));
}

#[test]
fn a_front_is_trained_further_from_its_files() {
    let first = done(CONDITION, "").unwrap();
    let policy = first.out.join("policies").join(ROUND);
    let more = format!("{CONDITION}start = {:?}\n", policy);
    let second = done(&more, "").unwrap();
    assert_eq!(fronts(&second.events).len(), 1);
    let plain = done(
        &format!("start = {policy:?}\nrank = 8\nalpha = 16.0\n"),
        "dimension-weights = { honesty = 1, helpfulness = 0 }\n",
    );
    let error = plain.err().unwrap();
    assert!(error.to_string().contains("holds no adapter_config.json"), "{error}");
}

#[test]
fn a_conditional_run_that_breaks_off_goes_on_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let spec = spec(&out, CONDITION, "");
    let mut seen = Memory::default();
    let stop = AtomicBool::new(false);
    run(prepare(&spec, &mut Memory::default()).unwrap(), &mut seen, &stop).unwrap();
    goes_on_bit_for_bit(&spec, &out, (3..seen.0.len()).step_by(7));
}

#[track_caller]
fn refused(lora: &str, round: &str, changes: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(&dir.path().join("out"), lora, round);
    for change in changes {
        if let Err(error) = spec.apply_set(change) {
            return format!("{error}; {:?}", error.hint());
        }
    }
    let error = prepare(&spec, &mut Memory::default()).unwrap_err();
    format!("{error}; {:?}", error.hint())
}

#[test]
fn what_cannot_be_weighed_is_refused_with_a_hint() {
    let of_plain = |round: &str| refused("rank = 2\n", round, &[]);
    let found = of_plain("dimension-weights = { honesty = 0.7, helpfulness = 0.4 }\n");
    assert!(found.contains("they sum to 1.1"), "{found}");
    let found = of_plain("dimension-weights = { honesty = 1 }\n");
    assert!(found.contains("\"helpfulness\" has no weight"), "{found}");
    let found = of_plain("dimension-weights = { honesty = 0.5, helpfulness = 0.25, brevity = 0.25 }\n");
    assert!(found.contains("\"brevity\" is none of"), "{found}");

    let of_front = |changes: &[&str]| refused(CONDITION, "", changes);
    let found = refused(CONDITION, "dimension-weights = { honesty = 0.7, helpfulness = 0.3 }\n", &[]);
    assert!(found.contains("leave `dimension-weights` out"), "{found}");
    for (change, reason) in [
        ("rounds.0.dimension=\"honesty\"", "no round weighs several"),
        ("rounds.0.dimension=[\"honesty\"]", "two dimensions or more"),
        ("rounds.0.dimension=[\"honesty\", \"honesty\"]", "each once"),
        ("rounds.0.dimension=[\"honesty\", \"brevity\"]", "brevity"),
        ("rounds.0.objective=\"kto\"", "does not learn from pairs"),
        ("rounds.0.online.scorer=\"rules:ends=1\"", "takes the data's pairs"),
        ("warmup.steps=2", "share one reference"),
        ("lora.dora=true", "neither magnitudes"),
        ("lora.modules-to-save=[\"norm\"]", "neither magnitudes"),
        ("lora.rounds=\"stack\"", "nothing to stack on"),
        ("checkpoints.keep-best=\"margin\"", "no margin of its own"),
        ("rounds.0.early-stopping={ metric = \"margin\" }", "whose accuracy or margin"),
        ("lora.shared-rank=0", "at least 1"),
        ("lora.concentration=0", "above 0"),
    ] {
        let found = of_front(&[change]);
        assert!(found.contains(reason), "{change}: {found}");
    }
    let found = refused("rank = 2\nshared-rank = 3\n", "dimension-weights = { honesty = 1, helpfulness = 0 }\n", &[]);
    assert!(found.contains("only an adapter with `condition"), "{found}");
}
