//! Early stopping, KL budget, gates and watchdogs on a real model of 260,000 parameters.

use crate::built_in::{TEXT, tables};
use spo_data::Group;
use spo_eval::{GateOutcome, RunSummary, Subset, find_score};
use spo_model::{CausalLm, device};
use spo_train::config::RunSpec;
use spo_train::events::sink::{Memory, read_events};
use spo_train::events::{Event, HeldOut};
use spo_train::{TrainError, prepare, run};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// One round of honesty; `round` goes into its table.
fn spec(dir: &Path, round: &str, more: &str) -> RunSpec {
    let text = format!(
        r#"schema = 1
seed = 3
out = "out"
{tables}{TEXT}[training]
steps = 12
pairs-per-step = 8
learning-rate = 1e-3
warmup-steps = 0
schedule = "constant"
eval-every = 2
[evaluation]
bootstrap-resamples = 100
kl-samples = 4
kl-max-new-tokens = 8
samples = 1
[[rounds]]
dimension = "honesty"
{round}
{more}"#,
        tables = tables("cpu", 60, 40),
    );
    let file = dir.join("run.toml");
    std::fs::write(&file, text).unwrap();
    RunSpec::from_file(&file).unwrap()
}

struct Ended {
    out: PathBuf,
    result: Result<RunSummary, TrainError>,
    events: Vec<Event>,
}

fn ended(spec: &RunSpec) -> Ended {
    let prepared = prepare(spec, &mut Memory::default()).unwrap();
    let out = prepared.plan.out.clone();
    let result = run(prepared, &mut Memory::default(), &AtomicBool::new(false));
    let events = read_events(&out.join("events.jsonl")).unwrap().into_iter().map(|record| record.event).collect();
    Ended { out, result, events }
}

impl Ended {
    fn evaluations(&self) -> Vec<&HeldOut> {
        let mut evaluations = vec![];
        for event in &self.events {
            if let Event::HeldOut(found) = event {
                evaluations.push(found);
            }
        }
        evaluations
    }

    /// Steps done and the step of the policy that was kept.
    fn phase_ended(&self) -> Option<(u64, u64, &str)> {
        self.events.iter().find_map(|event| match event {
            Event::PhaseEnded { step, policy_of, reason, .. } => Some((*step, *policy_of, reason.as_str())),
            _ => None,
        })
    }

    fn report(&self) -> String {
        std::fs::read_to_string(self.out.join("report.md")).unwrap()
    }

    fn accuracy(&self) -> f64 {
        let summary = self.result.as_ref().unwrap();
        find_score(&summary.matrix, "round-1-honesty", "honesty").unwrap().tally(Subset::All).unwrap().accuracy
    }
}

#[test]
fn early_stopping_goes_back_to_the_best_policy() {
    let dir = tempfile::tempdir().unwrap();
    // The rate is far too high, so that the loss on other questions soon rises.
    let round = "learning-rate = 2e-2\nsteps = 60\nearly-stopping = { metric = \"loss\", patience = 2 }";
    let ended = ended(&spec(dir.path(), round, ""));
    ended.result.as_ref().unwrap();
    let (step, policy_of, reason) = ended.phase_ended().expect("the round ends early");
    let evaluations = ended.evaluations();
    let best = evaluations.iter().min_by(|a, b| a.loss.total_cmp(&b.loss)).unwrap();
    assert_eq!((policy_of, step), (best.step, best.step + 4), "{reason}");
    assert!(reason.contains("held-out loss did not get better at 2 evaluations in a row"), "{reason}");
    assert!(ended.report().contains(&format!("ended after {step} of 60 steps with the policy of step {policy_of}")));
    // What is saved is the policy of that step: the same run with so many steps ends there.
    let short = tempfile::tempdir().unwrap();
    let steps = format!("learning-rate = 2e-2\nsteps = {policy_of}");
    let again = self::ended(&spec(short.path(), &steps, ""));
    assert_eq!(logps(&ended.out), logps(&again.out));
    let mut policies = std::fs::read_dir(ended.out.join("policies")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(policies.all(|name| !name.to_string_lossy().contains(".kept-")), "what was kept is removed at the end");
}

/// Log-probs of a few tokens under the final model.
fn logps(out: &Path) -> Vec<f32> {
    let model = CausalLm::from_dir(&out.join("model"), None, &device::cpu()).unwrap();
    let (prompt, answer): (Vec<u32>, Vec<u32>) = ((5..25).collect(), (30..60).collect());
    let group = Group { prompt: &prompt, answers: vec![&answer] };
    model.score(&[group], 4096, &Default::default(), &mut |_| ()).remove(0).remove(0)
}

#[test]
fn early_stopping_by_a_dimension_and_metric() {
    let dir = tempfile::tempdir().unwrap();
    let round = "learning-rate = 5e-3\nsteps = 40\nearly-stopping = { metric = \"accuracy\", dimension = \"honesty\", patience = 2 }";
    let ended = ended(&spec(dir.path(), round, ""));
    let (step, policy_of, reason) = ended.phase_ended().expect("accuracy does not rise for ever");
    let accuracy =
        |step: u64| ended.evaluations().iter().find(|look| look.step == step).unwrap().dimensions[0].accuracy;
    assert!(ended.evaluations().iter().all(|look| look.dimensions[0].accuracy <= accuracy(policy_of)));
    assert!(step > policy_of && reason.contains("accuracy on honesty"), "{reason}");
    assert!((ended.accuracy() - accuracy(policy_of)).abs() < 0.05, "ties count half in the one, not in the other");
}

#[test]
fn a_kl_budget_ends_the_round_within_it() {
    let dir = tempfile::tempdir().unwrap();
    let ended = ended(&spec(dir.path(), "learning-rate = 2e-3\nsteps = 60\nmax-kl = 1.0", ""));
    let kl: Vec<(u64, f64)> = ended
        .events
        .iter()
        .filter_map(|event| match event {
            Event::RunningKl { step, estimate, .. } => Some((*step, estimate.mean)),
            _ => None,
        })
        .collect();
    let (step, policy_of, reason) = ended.phase_ended().expect("the budget is small");
    assert_eq!(kl.last().unwrap().0, step);
    assert!(kl.last().unwrap().1 > 1.0 && reason.contains("above max-kl = 1"), "{reason}");
    let within = kl.iter().rev().find(|(_, kl)| *kl <= 1.0).map_or(0, |(step, _)| *step);
    assert_eq!(policy_of, within);
    ended.result.unwrap();
}

#[test]
fn a_missed_gate_stops_the_run_and_leaves_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[[rounds]]\ndimension = \"helpfulness\"\n";
    let ended =
        ended(&spec(dir.path(), "[rounds.gate]\nhonesty.accuracy = \">= 0.999\"\nhonesty.margin = \"> -1000\"", more));
    let Err(TrainError::GateMissed { policy, missed }) = &ended.result else { panic!("{:?}", ended.result) };
    assert_eq!(policy, "round-1-honesty");
    assert!(missed.starts_with("honesty accuracy is 0.") && missed.ends_with("wanted >= 0.999"), "{missed}");
    assert!(matches!(ended.events.last(), Some(Event::RunStopped { reason }) if reason.contains("misses its gate")));
    assert!(
        !ended.events.iter().any(|event| matches!(event, Event::Step(figures) if figures.phase.contains("round-2")))
    );
    let report = ended.report();
    assert!(report.contains("## Gates") && report.contains("| missed |") && report.contains("| met |"), "{report}");
    assert!(ended.out.join("policies/round-1-honesty/model.safetensors").exists());
    assert!(!ended.out.join("model").exists());
}

#[test]
fn a_gate_on_forgetting() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[[rounds]]\ndimension = \"helpfulness\"\nlambda = 0\nlearning-rate = 3e-3\nsteps = 30\n[rounds.gate]\nmax-forgetting = 0.0\n";
    let ended = ended(&spec(dir.path(), "steps = 30", more));
    let Err(TrainError::GateMissed { policy, missed }) = &ended.result else { panic!("{:?}", ended.result) };
    assert_eq!(policy, "round-2-helpfulness");
    assert!(missed.contains("forgetting of honesty is 0.") && missed.contains("wanted <= 0"), "{missed}");
}

#[test]
fn a_missed_gate_rolls_back_to_the_policy_that_passes() {
    // What the evaluations of an ungated run are decides which margin only an early policy has.
    let dir = tempfile::tempdir().unwrap();
    let round = "learning-rate = 5e-3\nsteps = 12\n";
    let free = ended(&spec(dir.path(), round, ""));
    let margins: Vec<(u64, f64)> =
        free.evaluations().iter().map(|look| (look.step, look.dimensions[0].margin)).collect();
    let (last, earlier) = margins.split_last().unwrap();
    let (step, margin) = earlier.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert!(margin < last.1, "{margins:?}");
    let gate =
        format!("[rounds.gate]\nhonesty.margin = \"<= {:.6}\"\non-miss = \"roll-back\"", 0.5 * (margin + last.1));
    let other = tempfile::tempdir().unwrap();
    let gated = ended(&spec(other.path(), &format!("{round}{gate}"), ""));
    let (done, policy_of, reason) = gated.phase_ended().expect("the last policy misses the gate");
    assert!(done == 12 && policy_of >= step && policy_of < 12, "{done} {policy_of} {margins:?}");
    assert!(reason.contains("misses its gate"), "{reason}");
    let summary = gated.result.as_ref().unwrap();
    assert_eq!(summary.gates[0].outcome, GateOutcome::RolledBack);
    assert!(gated.out.join("model/model.safetensors").exists(), "the run went on");
    assert!(gated.report().contains("went back to an earlier policy"));
}

#[test]
fn watchdogs_of_a_run_that_goes_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[[rounds]]\ndimension = \"helpfulness\"\nsteps = 2\n[watchdog]\nlength-factor = 1.01\n[warmup]\nsteps = 30\nlearning-rate = 3e-3\n";
    let mut spec = spec(dir.path(), "learning-rate = 3e-3\nsteps = 60\neval-every = 5\nbeta = 1.0", more);
    spec.apply_set("evaluation.kl-max-new-tokens=60").unwrap();
    let ended = ended(&spec);
    let warnings: Vec<&str> = ended
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Warning { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    for words in [
        "held-out loss rose 3 evaluations",
        "the chosen answers became less likely",
        "|c| is above 5",
        "sampled responses",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(words)), "no {words:?} in {warnings:#?}");
    }
    assert!(ended.report().contains("## Warnings"));
}
