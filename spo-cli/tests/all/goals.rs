//! Rewards in context: rows with scores in their prompts, goals for answers.

use std::fs;
use std::path::Path;

use crate::support::{good, path, spo, stories};
use serde_json::{Value, json};
use tempfile::tempdir;

const SCORER: [&str; 2] = ["--scorer", "brevity=rules:length=1"];

fn lines(file: &Path) -> Vec<Value> {
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn scores_go_into_prompts_and_goals_come_out() {
    let directory = tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let rows = [
        json!({"id": "a", "prompt": "Why?", "responses": ["one", "one two three", "one two"]}),
        json!({"id": "b", "prompt": "How?", "responses": ["a b c d e", "a"]}),
        json!({"id": "c", "prompt": "Who?", "responses": ["alone"]}),
    ];
    fs::write(file("rows.jsonl"), rows.map(|row| row.to_string()).join("\n")).unwrap();
    let (rows, scale, out) = (path(&file("rows.jsonl")), path(&file("goals.json")), path(&file("train.jsonl")));
    good(&[&["data", "goals", &rows, "--scale", &scale, "--out", &out][..], &SCORER].concat());
    // Scores 0, −2, −1, −4, 0, 0: mean −7/6, variance 21/6 − 49/36.
    let goals: Value = serde_json::from_str(&fs::read_to_string(&scale).unwrap()).unwrap();
    let deviation = (21.0 / 6.0 - 49.0 / 36.0_f64).sqrt();
    assert!((goals["brevity"]["mean"].as_f64().unwrap() + 7.0 / 6.0).abs() < 1e-12);
    assert!((goals["brevity"]["deviation"].as_f64().unwrap() - deviation).abs() < 1e-12);
    let found = lines(Path::new(&out));
    let tag = |score: f64| format!("{:.1}", (score + 7.0 / 6.0) / deviation);
    assert_eq!(found.len(), 5);
    let first = json!({"id": "a/1", "prompt": format!("Why? <brevity> {}", tag(0.0)), "chosen": "one",
        "rejected": "one two three"});
    assert_eq!(found[0], first);
    assert_eq!(found[3]["prompt"], format!("How? <brevity> {}", tag(-4.0)));
    // Tagged rows are tagged anew, by the scale that is there, and only the best stay.
    let again = path(&file("again.jsonl"));
    good(&[&["data", "goals", &out, "--scale", &scale, "--out", &again, "--keep", "0.9"][..], &SCORER].concat());
    let prompts: Vec<Value> = lines(Path::new(&again)).iter().map(|row| row["prompt"].clone()).collect();
    assert!(prompts.iter().all(|prompt| prompt.as_str().unwrap().ends_with(&format!("? <brevity> {}", tag(0.0)))));
    // The control has the same tags, on other answers.
    let control = path(&file("control.jsonl"));
    good(
        &[&["data", "goals", &rows, "--scale", &scale, "--out", &control, "--shuffle", "--seed", "3"][..], &SCORER]
            .concat(),
    );
    let tags = |rows: &[Value]| {
        let mut tags: Vec<String> =
            rows.iter().map(|row| row["prompt"].as_str().unwrap().split_once(" <").unwrap().1.into()).collect();
        tags.sort();
        tags
    };
    let shuffled = lines(Path::new(&control));
    assert_ne!(shuffled, found);
    assert_eq!(shuffled.len(), found.len());
    assert!(tags(&shuffled).iter().all(|tag| tags(&found).contains(tag)));
    // Drawn goals are those of their seed.
    let draw = |seed: &str, name: &str| {
        let out = path(&file(name));
        good(&["data", "goals", &rows, "--draw", "7", "--seed", seed, "--scale", &scale, "--out", &out]);
        lines(Path::new(&out))
    };
    let drawn = draw("1", "draws-1.jsonl");
    assert_eq!(drawn.len(), 7);
    assert!(drawn.iter().all(|row| row["prompt"].as_str().unwrap().contains("? <brevity> ")));
    assert_eq!(drawn, draw("1", "draws-2.jsonl"));
    assert_ne!(drawn, draw("2", "draws-3.jsonl"));
}

#[test]
fn labels_are_goals_too() {
    let directory = tempdir().unwrap();
    let file = |name: &str| path(&directory.path().join(name));
    let rows = [
        json!({"prompt": "Why?", "response_a": "x", "response_b": "y", "prefs": {"honesty": 1, "style": -1}}),
        json!({"prompt": "How?", "response_a": "x", "response_b": "y", "prefs": {"honesty": -1, "style": 0}}),
    ];
    fs::write(file("rows.jsonl"), rows.map(|row| row.to_string()).join("\n")).unwrap();
    good(&["data", "goals", &file("rows.jsonl"), "--labels", "--scale", &file("s.json"), "--out", &file("o.jsonl")]);
    let found = lines(Path::new(&file("o.jsonl")));
    assert_eq!(found[0]["prompt"], "Why? <honesty> 1.0 <style> -1.4");
    assert_eq!(found[3]["prompt"], "How? <honesty> 1.0 <style> 0.0");
}

#[test]
fn answers_are_sampled_for_goals() {
    let directory = tempdir().unwrap();
    let file = |name: &str| path(&directory.path().join(name));
    let scale = json!({"brevity": {"mean": 0, "deviation": 1, "low": -2, "high": 1.5},
        "style": {"mean": 0, "deviation": 1, "low": -1, "high": 1}});
    fs::write(file("goals.json"), scale.to_string()).unwrap();
    fs::write(file("prompts.txt"), "Once upon a time\nThe dog\n").unwrap();
    let (model, prompts, scale) = (stories(), file("prompts.txt"), file("goals.json"));
    let arguments = [
        "generate",
        "--model",
        &model,
        "--device",
        "cpu",
        "--prompts",
        &prompts,
        "--goals",
        "brevity=0.6,style=0.8",
        "--scale",
        &scale,
        "--samples",
        "3",
        "--temperature",
        "1",
        "--max-new-tokens",
        "6",
        "--json",
    ];
    let found: Vec<Value> = good(&arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), 2);
    // 0.6 · 3.5 − 2 and 0.8 · 2 − 1.
    assert_eq!(found[0]["prompt"], "Once upon a time <brevity> 0.1 <style> 0.6");
    let texts = found[0]["responses"].as_array().unwrap();
    assert_eq!(texts.len(), 3);
    assert!(texts.iter().any(|text| *text != texts[0]));
    // They are rows that can be labelled as they are.
    fs::write(file("answers.jsonl"), good(&arguments)).unwrap();
    good(&[&["data", "label", &file("answers.jsonl"), "--out", &file("pairs.jsonl")][..], &SCORER].concat());
    let mean = good(&[&["score", "--data", &file("answers.jsonl"), "--mean", "--json"][..], &SCORER].concat());
    let mean: Value = serde_json::from_str(&mean).unwrap();
    assert_eq!(mean["brevity"]["answers"], 6);
    assert!(mean["brevity"]["mean"].as_f64().unwrap() < 0.0);
}

#[test]
fn wrong_goals_say_what_is_right() {
    let directory = tempdir().unwrap();
    let file = |name: &str| path(&directory.path().join(name));
    let row = r#"{"prompt": "a", "responses": ["x", "y"]}"#;
    fs::write(file("rows.jsonl"), row).unwrap();
    fs::write(file("goals.json"), r#"{"brevity": {"mean": 0, "deviation": 1, "low": -1, "high": 1}}"#).unwrap();
    fs::write(file("bad.json"), r#"{"brevity": 3}"#).unwrap();
    let (rows, goals, bad, none, out) =
        (file("rows.jsonl"), file("goals.json"), file("bad.json"), file("none.json"), file("out.jsonl"));
    let model = stories();
    let generate = ["generate", "--model", &model, "--prompt", "a", "--goals"];
    for (arguments, said) in [
        ([&generate[..], &["brevty=1", "--scale", &goals]].concat(), "NAME=WEIGHT of brevity"),
        ([&generate[..], &["brevity=0", "--scale", &goals]].concat(), "a weight above 0"),
        ([&generate[..], &["brevity=1", "--scale", &bad]].concat(), "mean, deviation, low and high"),
        ([&generate[..], &["brevity=1"]].concat(), "--scale"),
        (vec!["data", "goals", &rows, "--scale", &none, "--out", &out, "--draw", "3"], "no such file"),
        (vec!["data", "goals", &rows, "--scale", &none, "--out", &out], "required"),
        (
            vec!["data", "goals", &rows, "--scale", &none, "--out", &out, "--scorer", "flat=rules:ends=1"],
            "scores that are all equal",
        ),
        (vec!["generate", "--model", &model, "--prompt", "a", "--samples", "2", "--json"], "--temperature above 0"),
    ] {
        let ended = spo(&arguments);
        assert_ne!(ended.code, 0, "{arguments:?}");
        assert!(ended.err.contains(said), "{arguments:?}: {}", ended.err);
    }
}
