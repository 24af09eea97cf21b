//! Sweeps: what is varied, what is shared, what comes out.

use crate::built_in::{events, tables, written};
use spo_eval::pareto::{front, hypervolume};
use spo_train::TrainError;
use spo_train::config::RunSpec;
use spo_train::events::sink::Memory;
use spo_train::events::{Event, Sink};
use spo_train::sweep::{Axis, Progress, Variant, sweep, variants};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn spec(dir: &Path) -> RunSpec {
    let text = format!(
        r#"schema = 1
name = "demo"
{tables}[warmup]
steps = 2
[training]
steps = 3
pairs-per-step = 8
learning-rate = 1e-3
warmup-steps = 0
[[rounds]]
dimension = "honesty"
[[rounds]]
dimension = "helpfulness"
lambda = {{ honesty = 1.0 }}
[evaluation]
bootstrap-resamples = 100
kl-samples = 2
kl-max-new-tokens = 4
samples = 1
"#,
        tables = tables("cpu", 60, 40),
    );
    written(dir, &text)
}

fn axis(text: &str) -> Axis {
    Axis::parse(text).unwrap()
}

#[test]
fn axes_are_read_or_refused() {
    assert_eq!(axis("a.b=0, 0.5,1").values, ["0", "0.5", "1"]);
    assert_eq!(axis("a=[1,2],{x = 1, y = 2},\"p,q\"").values, ["[1,2]", "{x = 1, y = 2}", "\"p,q\""]);
    for (text, words) in [("a", "no `=`"), ("a=1,,2", "empty value"), ("a=", "empty value"), ("a=1,2,1", "1 twice")] {
        assert!(Axis::parse(text).unwrap_err().contains(words), "{text}");
    }
}

fn names(variants: &[Variant]) -> Vec<&str> {
    variants.iter().map(|variant| variant.name.as_str()).collect()
}

#[test]
fn a_grid_has_every_combination() {
    let dir = tempfile::tempdir().unwrap();
    let grid = [axis("rounds.1.lambda=0,0.5"), axis("rounds.1.alpha=0.05,0.1")];
    let all = variants(&spec(dir.path()), &grid, false).unwrap();
    let expected = ["lambda=0_alpha=0.05", "lambda=0_alpha=0.1", "lambda=0.5_alpha=0.05", "lambda=0.5_alpha=0.1"];
    assert_eq!(names(&all), expected);
    let alike = [axis("rounds.0.learning-rate=1e-3,1e-4"), axis("rounds.1.learning-rate=1e-3")];
    let all = variants(&spec(dir.path()), &alike, false).unwrap();
    assert_eq!(names(&all)[0], "rounds.0.learning-rate=1e-3_rounds.1.learning-rate=1e-3");
    let error = variants(&spec(dir.path()), &[axis("rounds.1.lamda=0")], false).unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("did you mean `lambda`?"));
}

#[test]
fn every_order_keeps_the_settings_of_its_places() {
    let dir = tempfile::tempdir().unwrap();
    let all = variants(&spec(dir.path()), &[], true).unwrap();
    assert_eq!(names(&all), ["order=honesty-helpfulness", "order=helpfulness-honesty"]);
    let rounds = &all[1].spec.sections().rounds;
    assert_eq!([&rounds[0], &rounds[1]].map(|round| round.dimension.names()), [["helpfulness"], ["honesty"]]);
    assert_eq!(rounds[1].options["lambda"], serde_json::json!({ "helpfulness": 1.0 }));
    // A repeated dimension gives no order twice.
    let mut three = spec(dir.path());
    three.apply_set("rounds.1.lambda=1").unwrap();
    three.apply_set("rounds.1.dimension=honesty").unwrap();
    assert_eq!(variants(&three, &[], true).unwrap().len(), 1);
}

fn reused(out: &Path, run: &str) -> Vec<String> {
    let name = |event: &Event| match event {
        Event::Reused { policy, .. } => Some(policy.clone()),
        _ => None,
    };
    events(&out.join(run)).iter().filter_map(name).collect()
}

#[test]
fn several_processes_share_a_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let (out, whole) = (dir.path().join("sweep"), dir.path().join("whole"));
    let grid = [axis("rounds.1.lambda=0,1"), axis("rounds.1.steps=3,4")];
    let all = variants(&spec(dir.path()), &grid, false).unwrap();
    let (expected, _) = swept(&all, &whole);
    std::fs::create_dir_all(&out).unwrap();
    // Locks are of open files: threads keep each other out as processes do.
    let found = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| swept(&all, &out))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for (index, variant) in all.iter().enumerate() {
        let begun = found.iter().filter(|(_, told)| told.contains(&(index, Progress::Begins))).count();
        assert!(begun > 0, "nobody began run {index}: {found:?}");
        let run = out.join(&variant.name);
        assert_eq!(figures(&events(&run)), figures(&events(&whole.join(&variant.name))), "{index}");
    }
    // The one that ends last has all of it.
    let most = found.iter().map(|(summary, _)| summary).max_by_key(|summary| summary.runs.len()).unwrap();
    assert_eq!(most.runs.len(), all.len());
    assert_eq!(most.hypervolume, expected.hypervolume);
}

/// Bits of every loss and gradient norm, and the hash of every policy.
fn figures(events: &[Event]) -> Vec<String> {
    let figure = |event: &Event| match event {
        Event::Step(figures) => Some(format!(
            "{} {} {:x} {:x}",
            figures.phase,
            figures.step,
            figures.loss.to_bits(),
            figures.grad_norm.to_bits()
        )),
        Event::PolicySaved { policy, hash, .. } => Some(format!("{policy} {hash}")),
        _ => None,
    };
    events.iter().filter_map(figure).collect()
}

fn swept(all: &[Variant], out: &Path) -> (spo_eval::SweepSummary, Vec<(usize, Progress)>) {
    let mut told = vec![];
    let mut hear = |index: usize, _: &Variant, progress| told.push((index, progress));
    let sink = &mut || Box::<Memory>::default() as _;
    let summary = sweep("demo", all, out, sink, &mut hear, &AtomicBool::new(false)).unwrap();
    (summary, told)
}

#[test]
fn runs_share_what_they_have_in_common() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sweep");
    let spec = spec(dir.path());
    let grid = [axis("rounds.1.lambda=0,1"), axis("rounds.1.steps=3,4")];
    let all = variants(&spec, &grid, false).unwrap();
    let (summary, told) = swept(&all, &out);
    assert_eq!(told, [0, 1, 2, 3].map(|index| (index, Progress::Begins)));
    assert!(reused(&out, &all[0].name).is_empty());
    for run in &all[1..] {
        assert_eq!(reused(&out, &run.name), ["warmup", "round-1-honesty"], "{}", run.name);
    }
    // Shared or not, a run is what it is alone, bit for bit.
    let alone = dir.path().join("alone");
    let (_, _) = swept(&all[3..], &alone);
    assert!(reused(&alone, &all[3].name).is_empty());
    assert_eq!(figures(&events(&out.join(&all[3].name))), figures(&events(&alone.join(&all[3].name))));
    let accuracies = |summary: &spo_eval::SweepSummary, run: usize| {
        summary.runs[run].tallies.iter().map(|tally| tally.accuracy).collect::<Vec<_>>()
    };

    // Front and hypervolume are those of the accuracies.
    let points: Vec<Vec<f64>> = (0..4).map(|run| accuracies(&summary, run)).collect();
    let on_front: Vec<usize> = (0..4).filter(|run| summary.runs[*run].on_front).collect();
    assert_eq!(on_front, front(&points).unwrap());
    assert_eq!(summary.hypervolume, hypervolume(&points, &[0.0, 0.0]).unwrap());
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let table = read("sweep.csv");
    let header = "run,rounds.1.lambda,rounds.1.steps,helpfulness accuracy,";
    assert!(table.starts_with(header) && table.lines().count() == 5, "{table}");
    let volumes = read("hypervolume.csv");
    let last = format!("4,{},{}", all[3].name, summary.hypervolume);
    assert!(volumes.lines().count() == 5 && volumes.lines().last() == Some(&last), "{volumes}");
    assert!(read("front.svg").starts_with("<svg") && read("hypervolume.svg").starts_with("<svg"));
    assert!(read("sweep.html").contains("<svg") && read("sweep.md").contains("## Hypervolume"));

    // The same command again runs nothing; a run that was not finished is started again and takes over what it had.
    let damaged = out.join(&all[2].name);
    let text = std::fs::read_to_string(damaged.join("events.jsonl")).unwrap();
    let cut = text.find("\"event\":\"phase-finished\",\"phase\":\"round-2-helpfulness\"").unwrap();
    std::fs::write(damaged.join("events.jsonl"), &text[..text[..cut].rfind('\n').unwrap() + 1]).unwrap();
    std::fs::remove_file(damaged.join("summary.json")).unwrap();
    let (again, told) = swept(&all, &out);
    let expected = [Progress::Found, Progress::Found, Progress::Begins, Progress::Found];
    assert_eq!(told, expected.into_iter().enumerate().collect::<Vec<_>>());
    assert_eq!(reused(&out, &all[2].name), ["warmup", "round-1-honesty"]);
    assert_eq!(accuracies(&again, 2), accuracies(&summary, 2));

    // Another model, other data or another seed shares nothing.
    let mut other = spec.clone();
    other.apply_set("seed=9").unwrap();
    let others = variants(&other, &[axis("rounds.1.lambda=2")], false).unwrap();
    swept(&others, &out);
    assert!(reused(&out, &others[0].name).is_empty());
}

#[test]
fn orders_share_the_warm_up() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sweep");
    let all = variants(&spec(dir.path()), &[axis("rounds.1.lambda=0,1")], true).unwrap();
    let (summary, _) = swept(&all, &out);
    assert_eq!(summary.runs.len(), 4);
    assert_eq!(reused(&out, &all[2].name), ["warmup"]);
    assert_eq!(reused(&out, &all[3].name), ["warmup", "round-1-helpfulness"]);
    // No answer is scored twice by a policy, also where an order scored more than the one before.
    for event in events(&out.join(&all[3].name)) {
        if let Event::Scored { policy, answers, cached, .. } = event {
            assert!(cached == answers || policy == "round-2-honesty", "{policy}: {cached} of {answers} from the cache");
        }
    }
}

#[test]
fn a_directory_of_other_settings_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sweep");
    let grid = [axis("rounds.1.lambda=0")];
    let first = variants(&spec(dir.path()), &grid, false).unwrap();
    swept(&first, &out);
    let mut other = spec(dir.path());
    other.apply_set("training.steps=2").unwrap();
    let second = variants(&other, &grid, false).unwrap();
    let sink = &mut || Box::<Memory>::default() as _;
    let error = sweep("demo", &second, &out, sink, &mut |_, _, _| (), &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, spo_train::TrainError::OutExists { .. }), "{error}");
    assert!(out.join(&first[0].name).join("model").exists());
}

/// Asks the sweep to stop in the middle of a round.
struct Stops<'a>(&'a AtomicBool);

impl Sink for Stops<'_> {
    fn event(&mut self, _: f64, event: &Event) -> Result<(), TrainError> {
        if matches!(event, Event::Step(figures) if figures.phase == "round-2-helpfulness" && figures.step == 2) {
            self.0.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[test]
fn an_interrupted_sweep_goes_on_in_the_middle_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let (out, whole) = (dir.path().join("sweep"), dir.path().join("whole"));
    let all = variants(&spec(dir.path()), &[axis("rounds.1.lambda=0,1")], false).unwrap();
    let (expected, _) = swept(&all, &whole);
    static STOP: AtomicBool = AtomicBool::new(false);
    for run in &all {
        STOP.store(false, Ordering::Relaxed);
        let error = sweep("demo", &all, &out, &mut || Box::new(Stops(&STOP)), &mut |_, _, _| (), &STOP).unwrap_err();
        assert!(matches!(&error, TrainError::Interrupted { out: at } if at == &out.join(&run.name)), "{error}");
        let steps = events(&out.join(&run.name)).iter().filter(|event| matches!(event, Event::Step(_))).count();
        // The next call goes on with this run first; it has no second step of round 2 left to stop at.
        assert!(steps > 0 && !out.join(&run.name).join("summary.json").exists());
    }
    let (found, _) = swept(&all, &out);
    for run in &all {
        assert_eq!(figures(&events(&out.join(&run.name))), figures(&events(&whole.join(&run.name))), "{}", run.name);
    }
    assert_eq!(found.hypervolume, expected.hypervolume);
    let left = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.contains("unfinished")), "nothing was begun anew");
}
