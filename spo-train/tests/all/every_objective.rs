//! Every objective of the registry, trained by a run file on the built-in model: two rounds of two steps.

use serde_json::{Value, json};
use spo_core::objective::{Build, registry};
use spo_train::config::RunSpec;
use spo_train::events::sink::{Memory, read_events};
use spo_train::events::{Event, StepFigures};
use spo_train::forecast::Forecast;
use spo_train::{TrainError, prepare, run};
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Rows with everything that any loss looks at.
fn rows(kind: &str) -> String {
    let words = ["sun", "cat", "tree", "boy", "ball", "dog", "house", "girl"];
    let mut text = String::new();
    for index in 0..24 {
        let (a, b, c) = (words[index % 8], words[(index + 3) % 8], words[(index / 3) % 8]);
        let prompt = format!("Tell me about the {a} and the {b}, number {index}.");
        let row = match kind {
            "pairs" => json!({
                "prompt": prompt, "response_a": format!("The {a} saw a {c} and was glad."), "response_b": format!("No {b}."),
                "prefs": {"first": if index % 3 == 0 { -1 } else { 1 }, "second": 1},
                "scores": {"first": if index % 3 == 0 { [1.0, 4.0] } else { [3.5, 1.0] }, "second": [2.0, 1.0]},
                "safe": [index % 2 == 0, index % 5 != 0],
            }),
            "answers" => {
                json!({"prompt": prompt, "completion": format!("The {a} saw a {c}."), "label": index % 2 == 0})
            }
            _ => json!({
                "prompt": prompt, "responses": [format!("The {a}."), format!("A {b} ran."), format!("No {c} at all.")],
                "scores": {"first": [index % 3, 1, 4], "second": [2, 1, 0]},
            }),
        };
        writeln!(text, "{row}").unwrap();
    }
    text
}

fn spec(dir: &Path, rounds: &str) -> RunSpec {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spo-cli/assets/stories260K");
    let mut data = String::new();
    for (kind, keys) in [("pairs", ""), ("answers", "dimension = \"thumbs\"\n"), ("lists", "")] {
        std::fs::write(dir.join(format!("{kind}.jsonl")), rows(kind)).unwrap();
        // Pairs and lists have dimensions of the same names: a run takes one of the files.
        if rounds.contains("\"lists\"") == (kind == "lists") {
            write!(data, "[[data]]\npath = \"{kind}.jsonl\"\n{keys}").unwrap();
        }
    }
    let text = format!(
        "schema = 1\nseed = 5\nout = \"out\"\nholdout = 0.25\n[model]\npath = {model:?}\ndevice = \"cpu\"\n{data}\
         [training]\nsteps = 2\npairs-per-step = 6\nlearning-rate = 1e-4\nwarmup-steps = 0\neval-every = 1\n\
         tokens-per-micro-batch = 200\n{}\n[evaluation]\nbootstrap-resamples = 100\nkl-samples = 0\nsamples = 0\n",
        rounds.replace("\"lists\"", "\"first\"")
    );
    std::fs::write(dir.join("run.toml"), text).unwrap();
    RunSpec::from_file(&dir.join("run.toml")).unwrap()
}

fn events(rounds: &str) -> Vec<Event> {
    let directory = tempfile::tempdir().unwrap();
    let prepared = prepare(&spec(directory.path(), rounds), &mut Memory::default()).unwrap();
    run(prepared, &mut Memory::default(), &AtomicBool::new(false)).unwrap_or_else(|error| panic!("{rounds}: {error}"));
    let events = read_events(&directory.path().join("out/events.jsonl")).unwrap();
    events.into_iter().map(|record| record.event).collect()
}

fn steps(events: &[Event]) -> Vec<&StepFigures> {
    events.iter().filter_map(|event| if let Event::Step(figures) = event { Some(figures) } else { None }).collect()
}

fn error(rounds: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let error = prepare(&spec(directory.path(), rounds), &mut Memory::default()).unwrap_err();
    assert!(!directory.path().join("out").exists(), "nothing is written before the data are checked");
    error.to_string()
}

#[test]
fn every_objective_of_the_registry_trains() {
    for entry in registry() {
        let dimensions: &[&str] = match entry.build {
            Build::Pair(_) => &["first"],
            Build::Either(..) => &["first", "thumbs"],
            Build::Unpaired(_) => &["thumbs", "first"], // a pair is two labelled answers
            Build::List(_) => &["lists"],
            Build::Reward(_) => &[], // the only round of its run: rewards.rs
            Build::Score => &[],     // no loss on rows: score.rs
        };
        for dimension in dimensions {
            let name = entry.name;
            let rounds = format!(
                "[[rounds]]\ndimension = \"second\"\n[[rounds]]\ndimension = \"{dimension}\"\nobjective = \"{name}\"\n{}",
                if entry.needs.sampled { "max-new-tokens = 8\n" } else { "" }
            );
            let events = events(&rounds);
            let of_round: Vec<&StepFigures> = steps(&events).into_iter().skip(2).collect();
            assert_eq!(of_round.len(), 2, "{name}");
            for figures in of_round {
                assert!(figures.loss.is_finite() && figures.grad_norm > 0.0, "{name} {dimension}: {figures:?}");
                assert_eq!(figures.kl.is_some(), entry.needs.sequence_kl || entry.needs.mismatched, "{name}");
            }
            let held_out = events.iter().filter_map(|event| match event {
                Event::HeldOut(found) if found.phase.starts_with("round-2") => Some(found.loss),
                _ => None,
            });
            assert!(held_out.filter(|loss| loss.is_finite()).count() == 2, "{name}");
            let evaluated = events.iter().any(|event| {
                matches!(event, Event::Evaluated { policy, scores, .. } if policy.starts_with("round-2") && !scores.is_empty())
            });
            assert!(evaluated, "{name}");
        }
    }
}

#[test]
fn options_of_every_paired_objective_train() {
    for options in [
        "wpo = true\nnll-weight = 0.5",
        "ld-alpha = 0.3",
        "objective = \"dpo\"\ndivergence = \"js\"",
        "objective = \"dpo\"\ndivergence = \"alpha\"\ndivergence-alpha = 0.3",
        "objective = \"weighted-sum\"\nterms = [{ name = \"spo\", weight = 0.5 }, { name = \"mm-dpo\", weight = 1.0 }, { name = \"aot\", weight = 0.1 }]\nwpo = true",
        "objective = \"bco\"\nshift = true",
        "objective = \"mrpo\"\nreferences = [\"start\"]\nmean = \"geometric\"",
        "objective = \"tdpo-2\"\nwpo = true\nld-alpha = 0.5",
        "objective = \"spo\"\nld-alpha = 0.5\nlambda = 0.7",
    ] {
        let rounds = format!(
            "[[rounds]]\ndimension = \"second\"\n[[rounds]]\ndimension = \"first\"\nname = \"tried\"\n{options}"
        );
        for figures in steps(&events(&rounds)).into_iter().skip(2) {
            assert!(figures.loss.is_finite() && figures.grad_norm > 0.0, "{options}: {figures:?}");
        }
    }
}

/// Micro-batches are an affair of memory: a batch's first loss and gradient do not depend on them, though the loss
/// compares its pairs or estimates a KL on all of them.
#[test]
fn losses_on_whole_windows_do_not_depend_on_micro_batches() {
    for (dimension, options) in [
        ("first", "objective = \"aot\""),
        ("first", "objective = \"aot-unpaired\"\nwpo = true"),
        ("first", "objective = \"sft\""),
        ("first", "objective = \"bco\"\nshift = true"),
        ("thumbs", "objective = \"bco\"\nshift = true"),
        ("thumbs", "objective = \"kto\""),
    ] {
        let first = |budget: usize| {
            let rounds = format!(
                "[[rounds]]\ndimension = \"second\"\nsteps = 1\nlearning-rate = 1e-2\n\
                 [[rounds]]\ndimension = \"{dimension}\"\ntokens-per-micro-batch = {budget}\nlearning-rate = 1e-2\n{options}"
            );
            let events = events(&rounds);
            let figures = steps(&events)[2].clone();
            (figures.loss, figures.grad_norm)
        };
        let (whole, parts) = (first(100_000), first(80));
        let close = |a: f64, b: f64| (a - b).abs() <= 2e-4 * b.abs();
        assert!(close(parts.0, whole.0) && close(parts.1, whole.1), "{options}: {parts:?} {whole:?}");
    }
}

#[test]
fn what_the_data_lack_is_said_before_anything_is_trained() {
    let round = |dimension: &str, options: &str| format!("[[rounds]]\ndimension = \"{dimension}\"\n{options}");
    let cases: [(String, &[&str]); 6] = [
        (round("thumbs", "objective = \"dpo\""), &["`dpo` learns from pairs", "24 labelled answers"]),
        (round("thumbs", "objective = \"opo\""), &["`opo` learns from scored lists"]),
        (round("first", "objective = \"mrpo\""), &["objective `mrpo`", "none but \"start\""]),
        (
            round("second", "") + &round("first", "objective = \"mrpo\"\nreferences = [\"strat\"]"),
            &["`references` names \"strat\"", "start"],
        ),
        (round("second", "objective = \"spo\"\nlambda = { first = 1 }"), &["first"]),
        (round("first", "objective = \"bco\"\nterms = []"), &["terms"]),
    ];
    for (rounds, words) in cases {
        let found = error(&rounds);
        for word in words {
            assert!(found.contains(word), "no {word:?} in: {found}");
        }
    }
    // The fields of single rows.
    let stripped = |key: &str, rounds: &str| {
        let directory = tempfile::tempdir().unwrap();
        let spec = spec(directory.path(), rounds);
        let file = directory.path().join("pairs.jsonl");
        let rows: Vec<String> = std::fs::read_to_string(&file)
            .unwrap()
            .lines()
            .map(|line| {
                let mut row: Value = serde_json::from_str(line).unwrap();
                row.as_object_mut().unwrap().shift_remove(key);
                row.to_string()
            })
            .collect();
        std::fs::write(&file, rows.join("\n")).unwrap();
        match prepare(&spec, &mut Memory::default()).unwrap_err() {
            error @ TrainError::Objective { .. } => error.to_string(),
            error => panic!("{error}"),
        }
    };
    let found = stripped("scores", &round("first", "objective = \"mm-dpo\""));
    assert!(found.contains("`mm-dpo`") && found.contains("row pairs.jsonl:") && found.contains("no scores"), "{found}");
    let found = stripped("safe", &round("first", "objective = \"bfpo\""));
    assert!(found.contains("`bfpo`") && found.contains("`chosen_safe`"), "{found}");
}

/// Run and forecast follow one list: names in the journal, tokens trained on and answers scored are those it tells.
#[test]
fn a_run_does_what_its_forecast_says() {
    let round = |dimension: &str, options: &str| format!("[[rounds]]\ndimension = \"{dimension}\"\n{options}\n");
    let control = "[[rounds.controls]]\nname = \"free\"\nlambda = 0.0";
    for (rounds, sampled) in [
        (round("second", "gate = { second = { margin = \"> -1e9\" } }") + &round("first", control), false),
        (round("second", "") + &round("first", "objective = \"dpo\"\nld-alpha = 0.5"), false),
        (round("second", "") + &round("thumbs", "objective = \"kto\""), false),
        (round("second", "") + &round("lists", "objective = \"opo\""), false),
        (round("second", "") + &round("first", "objective = \"selm\"\nmax-new-tokens = 8"), true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut spec = spec(directory.path(), &rounds);
        for change in ["evaluation.kl-samples=2", "evaluation.kl-max-new-tokens=4", "evaluation.samples=1"] {
            spec.apply_set(change).unwrap();
        }
        let prepared = prepare(&spec, &mut Memory::default()).unwrap();
        let stages = Forecast::of(&prepared).unwrap().stages;
        run(prepared, &mut Memory::default(), &AtomicBool::new(false)).unwrap();
        let journal = std::fs::read_to_string(directory.path().join("out/progress.jsonl")).unwrap();
        let name = |line: &str| {
            let entry: Value = serde_json::from_str(line.split_once(' ').unwrap().1).unwrap();
            entry["stage"].as_str().unwrap().split('#').next().unwrap().to_owned()
        };
        let done: Vec<String> = journal.lines().map(name).filter(|name| !name.starts_with("cache ")).collect();
        assert_eq!(done, stages.iter().map(|stage| stage.stage.clone()).collect::<Vec<_>>());
        let of = |name: String| stages.iter().find(|stage| stage.stage == name).unwrap();
        for record in read_events(&directory.path().join("out/events.jsonl")).unwrap() {
            match record.event {
                Event::Scored { policy, answers, cached: 0, tokens, .. } => {
                    let stage = of(format!("score {policy}"));
                    let told = (stage.rows, stage.scored_tokens);
                    // Sampled answers are counted at their longest.
                    let at_most = sampled && answers <= told.0 && tokens <= told.1;
                    assert!((answers, tokens) == told || at_most, "{rounds} {policy}: {answers} {tokens} {told:?}");
                }
                Event::PhaseFinished { phase, tokens, .. } if !sampled => {
                    assert_eq!(tokens, of(format!("train {phase}")).trained_tokens, "{rounds} {phase}");
                }
                Event::ResponsesSampled { policy, responses, .. } => {
                    assert_eq!(responses, of(format!("draw {policy}")).rows, "{rounds} {policy}");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn the_plan_says_what_a_round_costs() {
    let directory = tempfile::tempdir().unwrap();
    let rounds = "[[rounds]]\ndimension = \"first\"\nobjective = \"tdpo-2\"\n[[rounds]]\ndimension = \"thumbs\"\nobjective = \"kto\"\n";
    let prepared = prepare(&spec(directory.path(), rounds), &mut Memory::default()).unwrap();
    let inputs = |round: usize| prepared.plan.rounds[round].main().inputs.join("; ");
    assert!(inputs(0).contains("it stays in memory, 1.0 MB more"), "{}", inputs(0));
    assert!(inputs(1).contains("one more forward pass per step"), "{}", inputs(1));
}
