//! Points of a front on the command line: generate, chat, score, eval, compare, export, and what is refused.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{good, path, refused};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

const ROUND: &str = "round-1-honesty-helpfulness";
const POINT: &str = "honesty=0.7,helpfulness=0.3";

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets")
}

fn pairs() -> String {
    path(&assets().join("truthfulqa/pairs.test.jsonl.gz"))
}

/// A run of six steps; its directory.
fn trained() -> (TempDir, String) {
    let dir = tempdir().unwrap();
    let (file, out) = (dir.path().join("run.toml"), path(&dir.path().join("out")));
    let text = format!(
        r#"schema = 1
[model]
path = {model:?}
device = "cpu"
[lora]
condition = "weights"
[[data]]
path = {data:?}
limit = 60
[text]
prompt-format = "Question: {{prompt}}\nAnswer:"
response-format = " {{response}}"
[training]
steps = 6
pairs-per-step = 8
learning-rate = 2e-2
warmup-steps = 0
[[rounds]]
dimension = ["honesty", "helpfulness"]
[evaluation]
bootstrap-resamples = 40
kl-samples = 0
samples = 0
"#,
        model = assets().join("stories260K"),
        data = pairs(),
    );
    std::fs::write(&file, text).unwrap();
    good(&["train", &path(&file), "--out", &out]);
    (dir, out)
}

fn scored(arguments: &[&str]) -> Vec<f64> {
    let pairs = pairs();
    let out = good(&[&["score", "--data", &pairs, "--limit", "4", "--json"], arguments].concat());
    out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["chosen_logp"].as_f64().unwrap()).collect()
}

fn alike(a: &[f64], b: &[f64], within: f64) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() < within)
}

#[test]
fn every_command_takes_a_point_and_refuses_what_is_none() {
    let (dir, run) = trained();
    let policy = format!("{run}:{ROUND}");
    let named = format!("{policy}@{POINT}");

    // The same point by name and by option; other points say other things; a run alone is its last policy.
    let at = scored(&["--model", &policy, "--weights", POINT]);
    assert_eq!(scored(&["--model", &named]), at);
    assert_eq!(scored(&["--model", &run, "--weights", "helpfulness=0.3,honesty=0.7"]), at);
    assert!(!alike(&scored(&["--model", &policy, "--weights", "honesty=0,helpfulness=1"]), &at, 1e-2));

    // Merged, and as a plain adapter of rank 8: the same log-probs.
    let (merged, adapter) = (path(&dir.path().join("merged")), path(&dir.path().join("adapter")));
    good(&["export", "--model", &policy, "--weights", POINT, "--format", "hf", "--out", &merged]);
    assert!(alike(&scored(&["--model", &merged]), &at, 1e-3));
    let manifest: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{merged}/manifest.json")).unwrap()).unwrap();
    assert!(manifest["policy"].as_str().unwrap().ends_with(POINT), "{manifest}");
    good(&["export", "--model", &named, "--format", "peft", "--out", &adapter]);
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{adapter}/adapter_config.json")).unwrap()).unwrap();
    assert_eq!((config["r"].as_u64(), config["lora_alpha"].as_f64()), (Some(8), Some(16.0)));
    let model = path(&assets().join("stories260K"));
    assert!(alike(&scored(&["--model", &model, "--adapter", &adapter]), &at, 1e-3));
    let gguf = path(&dir.path().join("gguf"));
    good(&["export", "--model", &named, "--format", "gguf", "--out", &gguf]);

    // The others.
    good(&["generate", "--model", &policy, "--weights", POINT, "--prompt", "Why?", "--max-new-tokens", "4"]);
    let (data, start) = (pairs(), format!("{run}:start"));
    let eval = good(&[
        "eval",
        "--model",
        &named,
        "--reference",
        &start,
        "--data",
        &data,
        "--limit",
        "12",
        "--resamples",
        "40",
    ]);
    assert!(eval.contains("honesty"), "{eval}");
    let prompts = path(&dir.path().join("prompts.txt"));
    std::fs::write(&prompts, "Why?\nHow?\n").unwrap();
    let other = format!("{policy}@honesty=0,helpfulness=1");
    let compare = ["compare", &named, &other, &start, "--prompts", &prompts, "--scorer", "rules:length=3"];
    good(&[&compare[..], &["--max-new-tokens", "4", "--resamples", "40"]].concat());
    let compare = ["compare", &policy, &start, "--weights", POINT, "--prompts", &prompts, "--scorer", "rules:length=3"];
    good(&[&compare[..], &["--max-new-tokens", "4", "--resamples", "40"]].concat());

    // Refusals.
    let err = refused(&["generate", "--model", &policy, "--prompt", "Why?"]);
    assert!(err.contains("--weights") && err.contains("honesty=0.5,helpfulness=0.5"), "{err}");
    let err = refused(&["generate", "--model", &start, "--weights", POINT, "--prompt", "Why?"]);
    assert!(err.contains("not conditioned on weights"), "{err}");
    for (weights, reason) in [
        ("honesty=0.7,helpfulness=0.4", "sum to 1.1"),
        ("honesty=1", "`helpfulness` has no weight"),
        ("honesty=0.5,brevity=0.5", "no dimension `brevity`"),
        ("honesty", "DIMENSION=WEIGHT"),
        ("q8", "--weight-format q8"),
    ] {
        let err = refused(&["score", "--model", &policy, "--data", &data, "--weights", weights]);
        assert!(err.contains(reason), "{weights}: {err}");
    }
    let out = path(&dir.path().join("none"));
    let err = refused(&["export", "--model", &model, "--format", "peft", "--out", &out]);
    assert!(err.contains("no adapter"), "{err}");
    chat(&run);
}

fn chat(run: &str) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_spo"))
        .args(["chat", run, "--max-new-tokens", "4"])
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = "Why?\n/weights honesty=0.6\n/weights honesty=0.6,helpfulness=0.4\n/weights\nWhy?\n/quit\n";
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{err}");
    assert!(err.contains("conditioned on them") && err.contains("`helpfulness` has no weight"), "{err}");
    assert!(out.starts_with("honesty=0.6,helpfulness=0.4\n") && out.lines().count() >= 2, "{out}");
}
