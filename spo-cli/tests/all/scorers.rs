//! Scorers from the command line: `score --scorer`, `data label`, `compare`.

use std::fs;
use std::path::Path;

use crate::support::{good, path, small_run, spo, stories};
use serde_json::{Value, json};
use tempfile::tempdir;

fn rows(directory: &Path) -> String {
    let file = directory.join("rows.jsonl");
    let rows = [
        json!({"id": "a", "prompt": "Once", "responses": ["one two three.", "one two", "one two three four five five"]}),
        json!({"id": "b", "prompt": "Twice", "responses": ["alike", "alike"]}),
    ];
    fs::write(&file, rows.map(|row| row.to_string()).join("\n")).unwrap();
    path(&file)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A trained run's directory.
fn trained(directory: &Path) -> String {
    let file = path(&small_run(directory));
    let run = path(&directory.join("run"));
    good(&["train", &file]);
    run
}

#[test]
fn answers_are_scored_one_line_a_row() {
    let directory = tempdir().unwrap();
    let rows = rows(directory.path());
    let found = lines(&good(&["score", "--scorer", "rules:length=3,ends=1", "--data", &rows, "--json"]));
    assert_eq!(found[0], json!({"id": "a", "scores": [1.0, -4.0 / 3.0, -2.0]}));
    let two = ["score", "--scorer", "style=rules:ends=1", "--scorer", "rules:length=3", "--data", &rows, "--json"];
    assert_eq!(lines(&good(&two))[0]["scores"][1], json!({"style": -1.0, "score": -1.0 / 3.0}));
    let single = directory.path().join("single.jsonl");
    fs::write(&single, r#"{"prompt": "Once", "completion": "one two three."}"#).unwrap();
    let found = lines(&good(&["score", "--scorer", "rules:length=3", "--data", &path(&single), "--json"]));
    assert_eq!(found, [json!({"id": "single.jsonl:1", "score": 0.0})]);
}

#[test]
fn labelled_rows_are_rows_to_train_on() {
    let directory = tempdir().unwrap();
    let rows = rows(directory.path());
    let out = path(&directory.path().join("pairs.jsonl"));
    let said = good(&["data", "label", &rows, "--scorer", "style=rules:length=3,ends=1", "--out", &out]);
    assert!(said.contains("1 rows written"), "{said}");
    let expected = json!({
        "id": "a", "prompt": "Once", "response_a": "one two three.", "response_b": "one two three four five five",
        "prefs": {"style": 1}, "scores": {"style": [1.0, -2.0]},
    });
    assert_eq!(lines(&fs::read_to_string(&out).unwrap()), [expected]);
    let checked = good(&["data", "check", &out, "--tokenizer", &stories()]);
    assert!(checked.contains("style") && checked.contains("prefs"), "{checked}");
    let all = path(&directory.path().join("all.jsonl"));
    good(&["data", "label", &rows, "--scorer", "rules:length=3", "--out", &all, "--pair", "all", "--min-gap", "0.5"]);
    let pairs = lines(&fs::read_to_string(&all).unwrap());
    let ids: Vec<&str> = pairs.iter().map(|row| row["id"].as_str().unwrap()).collect();
    // One and two words too few are nearer to each other than half a length.
    assert_eq!(ids, ["a/1", "a/2"]);
    let lists = path(&directory.path().join("lists.jsonl"));
    good(&["data", "label", &rows, "--scorer", "style=rules:ends=1", "--out", &lists, "--as", "lists"]);
    assert_eq!(lines(&fs::read_to_string(&lists).unwrap())[0]["scores"], json!({"style": [1.0, -1.0, -1.0]}));
    // Nothing is overwritten.
    let ended = spo(&["data", "label", &rows, "--scorer", "rules:ends=1", "--out", &out]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("exists"), "{}", ended.err);
}

#[test]
fn policies_are_compared_by_their_answers() {
    let directory = tempdir().unwrap();
    let run = trained(directory.path());
    let prompts = path(&directory.path().join("prompts.txt"));
    fs::write(&prompts, "Question: Why?\\nAnswer:\nOnce upon a time\nThe dog\n").unwrap();
    let out = path(&directory.path().join("answers.jsonl"));
    let [last, start] = [run.clone(), format!("{run}:start")];
    let arguments = [
        "compare",
        &last,
        &start,
        "--prompts",
        &prompts,
        "--scorer",
        "rules:length=10,repetition=1",
        "--temperature",
        "1",
        "--samples",
        "2",
        "--max-new-tokens",
        "12",
        "--device",
        "cpu",
        "--seed",
        "4",
    ];
    let found: Value = serde_json::from_str(&good(&[&arguments[..], &["--json", "--out", &out]].concat())).unwrap();
    assert_eq!(found[0]["duels"], 6);
    let sum: u64 = ["wins", "ties", "losses"].iter().map(|key| found[0][key].as_u64().unwrap()).sum();
    assert_eq!(sum, 6);
    let answers = lines(&fs::read_to_string(&out).unwrap());
    assert_eq!(answers.len(), 12);
    // The figures are those of the answers.
    let of = |policy: &str| -> Vec<f64> {
        let own = answers.iter().filter(|row| row["policy"] == policy);
        own.map(|row| row["score"].as_f64().unwrap()).collect()
    };
    let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len() as f64;
    assert!((mean(&of(&last)) - found[0]["a-score"].as_f64().unwrap()).abs() < 1e-9);
    let wins = of(&last).iter().zip(of(&start)).filter(|(a, b)| **a > *b).count();
    assert_eq!(found[0]["wins"], wins);
    // The same draws, whatever runs together.
    let alone: Value = serde_json::from_str(&good(&[&arguments[..], &["--json", "--batch", "1"]].concat())).unwrap();
    assert_eq!(alone, found);
    let table = good(&arguments);
    assert!(table.contains("win/tie/loss") && table.contains("equal length"), "{table}");
}

#[test]
fn the_implicit_reward_is_the_difference_of_two_policies() {
    let directory = tempdir().unwrap();
    let run = trained(directory.path());
    let rows = directory.path().join("rows.jsonl");
    fs::write(&rows, r#"{"prompt": "Why?", "completion": "Because it is so."}"#).unwrap();
    let rows = path(&rows);
    let scorer = format!("{{ kind = \"implicit\", policy = {run:?}, reference = \"{run}:start\", beta = 0.5 }}");
    let found = lines(&good(&["score", "--scorer", &scorer, "--data", &rows, "--json", "--device", "cpu"]));
    let logp = |model: &str| {
        let found = lines(&good(&["score", "--model", model, "--data", &rows, "--json", "--device", "cpu"]));
        found[0]["chosen_logp"].as_f64().unwrap()
    };
    let expected = 0.5 * (logp(&run) - logp(&format!("{run}:start")));
    assert!(expected != 0.0);
    assert!((found[0]["score"].as_f64().unwrap() - expected).abs() < 1e-6, "{found:?}, {expected}");
}

#[test]
fn wrong_requests_say_what_is_right() {
    let directory = tempdir().unwrap();
    let rows = rows(directory.path());
    let model = stories();
    for (arguments, code, said) in [
        (vec!["score", "--scorer", "rulez:length=3", "--data", &rows], 2, "did you mean `rules`?"),
        (vec!["score", "--scorer", "rules:lenght=3", "--data", &rows], 2, "unknown field `lenght`"),
        (vec!["score", "--scorer", "command:no-such-program", "--data", &rows], 1, "cannot be started"),
        (vec!["score", "--scorer", "http:http://10.1.2.3/", "--data", &rows], 2, "another machine"),
        (vec!["score", "--scorer", "rules:ends=1", "--model", &model, "--data", &rows], 2, "cannot be used with"),
        (vec!["score", "--data", &rows], 2, "required"),
        (vec!["data", "label", &rows, "--out", "x.jsonl"], 2, "who scores"),
        (vec!["compare", &model, &model, "--prompts", &rows], 2, "who scores"),
        (vec!["compare", &model, "--prompts", &rows, "--scorer", "rules:ends=1"], 2, "2"),
        (
            vec!["compare", &model, &model, "--prompts", &rows, "--scorer", "rules:ends=1", "--samples", "2"],
            2,
            "--temperature above 0",
        ),
    ] {
        let ended = spo(&arguments);
        assert_eq!(ended.code, code, "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains(said), "{arguments:?}: {}", ended.err);
    }
}

/// The scorer that docs/online.md shows, as it stands there.
#[test]
fn the_program_of_the_docs_scores() {
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        assert!(std::env::var_os("SPO_PYTHON").is_none_or(|wanted| wanted != "required"), "there is no python3");
        return;
    }
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/online.md")).unwrap();
    let (_, rest) = docs.split_once("```python\n").unwrap();
    let directory = tempdir().unwrap();
    let program = directory.path().join("scorer.py");
    fs::write(&program, rest.split_once("```").unwrap().0).unwrap();
    let rows = rows(directory.path());
    let scorer = format!("command:python3 '{}'", program.display());
    let found = lines(&good(&["score", "--scorer", &scorer, "--data", &rows, "--json"]));
    let scores: Vec<f64> = found[0]["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap()).collect();
    assert_eq!(scores.len(), 3);
    assert!(scores.iter().any(|score| *score != scores[0]), "{scores:?}");
}
