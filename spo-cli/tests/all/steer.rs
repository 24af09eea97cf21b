//! `spo steer` and what takes its files.

use crate::support::{self, path, small_run, spo, stories};
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::tempdir;

/// Pairs of one user, whose preferred answer is `side`.
fn pairs(count: usize, side: &str) -> String {
    let row = |index: usize| {
        let prefs = format!("{{\"honesty\": {side}}}");
        format!(
            "{{\"prompt\": \"Question {index}?\", \"response_a\": \"Yes it is {index}.\", \"response_b\": \"No.\", \"prefs\": {prefs}}}\n"
        )
    };
    (0..count).map(row).collect()
}

/// A short run of one round for many users: its run directory.
fn steered_run(directory: &Path, out: &str, lora: &str, steering: &str) -> String {
    let file = small_run(directory);
    let text = fs::read_to_string(&file).unwrap();
    let one = text.split("[[rounds]]\ndimension = \"helpfulness\"").next().unwrap();
    let rest = text.split("lambda = 0.0\n").nth(1).unwrap();
    let steering =
        format!("[lora]\n{lora}\n[steering]\nwidth = 8\nheads = 2\ncontexts = 4\nevaluate = [2]\n{steering}");
    fs::write(&file, format!("{one}{rest}{steering}")).unwrap();
    let out = path(&directory.join(out));
    let sets = ["--set", "training.learning-rate=0.02", "--set", "training.steps=3", "--out", &out];
    let found = spo(&[&["train", &path(&file)], sets.as_slice()].concat());
    assert_eq!(found.code, 0, "{}", found.err);
    out
}

#[test]
fn a_few_pairs_make_a_users_vector_that_only_its_policy_takes() {
    let directory = tempdir().unwrap();
    let run = |out: &str| steered_run(directory.path(), out, "rank = 2", "");
    let (first, second) = (run("first"), run("second"));
    // Another seed would be another policy; the same run file makes the same one.
    let policy = |run: &str| format!("{run}:round-1-honesty");
    let file = |name: &str, text: &str| {
        let file = directory.path().join(name);
        fs::write(&file, text).unwrap();
        path(&file)
    };
    let (mine, out) = (file("mine.jsonl", &pairs(3, "1")), path(&directory.path().join("mine.safetensors")));
    let steer = |model: &str, examples: &str, out: &str, more: &[&str]| {
        spo(&[&["steer", "--model", model, "--examples", examples, "--out", out, "--json"], more].concat())
    };
    let made = steer(&policy(&first), &mine, &out, &[]);
    assert_eq!(made.code, 0, "{}", made.err);
    let made: Value = serde_json::from_str(&made.out).unwrap();
    assert_eq!((made["contexts"].as_u64(), made["z"].as_array().unwrap().len()), (Some(3), 8));

    // It counts where it is named, and the opposite labels are another user.
    let score = |more: &[&str]| {
        let found = spo(&[&["score", "--model", &policy(&first), "--data", &mine, "--json"], more].concat());
        assert_eq!(found.code, 0, "{}", found.err);
        found.out
    };
    let (theirs, other) = (file("theirs.jsonl", &pairs(3, "-1")), path(&directory.path().join("theirs.safetensors")));
    assert_eq!(steer(&policy(&first), &theirs, &other, &[]).code, 0);
    let scored = [score(&[]), score(&["--steer", &out]), score(&["--steer", &other])];
    assert!(scored[0] != scored[1] && scored[1] != scored[2], "{scored:?}");
    let generated = ["--prompt", "Is it?", "--max-new-tokens", "4", "--steer", &out];
    let generated = spo(&[&["generate", "--model", &policy(&first)], generated.as_slice()].concat());
    assert_eq!(generated.code, 0, "{}", generated.err);
    let eval = ["--reference", &format!("{first}:start"), "--data", &mine, "--steer", &out, "--resamples", "40"];
    let eval = spo(&[&["eval", "--model", &policy(&first)], eval.as_slice()].concat());
    assert_eq!(eval.code, 0, "{}", eval.err);

    // No whole model is such a policy; its adapter with what steers it is, and takes the same file.
    let export = |format: &str, out: &str| {
        let out = path(&directory.path().join(out));
        spo(&["export", "--model", &policy(&first), "--format", format, "--out", &out])
    };
    let whole = export("hf", "whole");
    assert!(whole.code != 0 && whole.err.contains("--format peft"), "{}", whole.err);
    assert_eq!(export("peft", "adapter").code, 0);
    let adapter = path(&directory.path().join("adapter"));
    let exported = ["score", "--model", &stories(), "--adapter", &adapter, "--data", &mine, "--json", "--steer", &out];
    let exported = spo(&exported);
    assert_eq!(
        (exported.code, exported.out == scored[1]),
        (0, true),
        "{} {} {}",
        exported.err,
        exported.out,
        scored[1]
    );
    // The same seed and file: the second run's policy is the first one's, and takes it; the start has no steering.
    let same = spo(&["score", "--model", &policy(&second), "--data", &mine, "--steer", &out]);
    assert_eq!(same.code, 0, "{}", same.err);
    let refused = |found: support::Ended, words: &[&str]| {
        assert_ne!(found.code, 0);
        assert!(words.iter().all(|word| found.err.contains(word)), "{}", found.err);
    };
    let start = spo(&["score", "--model", &format!("{first}:start"), "--data", &mine, "--steer", &out]);
    refused(start, &["no steering", "spo steer"]);
    fs::write(directory.path().join("first/policies/round-1-honesty/steering.safetensors"), b"another").unwrap();
    refused(spo(&["score", "--model", &policy(&first), "--data", &mine, "--steer", &out]), &["steering.safetensors"]);
    let again = |examples: &str, more: &[&str]| {
        steer(&policy(&second), examples, &path(&directory.path().join("x.safetensors")), more)
    };
    refused(again(&file("many.jsonl", &pairs(5, "1")), &[]), &["5 pairs", "at most 4", "--limit 4"]);
    refused(again(&file("ties.jsonl", &pairs(2, "0")), &[]), &["no pair with a preferred answer"]);
    refused(again(&file("none.jsonl", ""), &[]), &["none.jsonl"]);
    let both = pairs(2, "1").replace("{\"honesty\": 1}", "{\"honesty\": 1, \"brevity\": -1}");
    let both = file("both.jsonl", &both);
    refused(again(&both, &[]), &["several dimensions", "--user", "brevity, honesty"]);
    assert_eq!(again(&both, &["--user", "brevity"]).code, 0);
    refused(steer(&format!("{second}:start"), &mine, &path(&directory.path().join("y")), &[]), &["[steering]"]);
    refused(steer(&policy(&second), &mine, &out, &[]), &["exists"]);
    let whole = path(&directory.path().join("whole"));
    let export = spo(&["export", "--model", &policy(&second), "--format", "hf", "--out", &whole]);
    refused(export, &["cannot be merged"]);
}

/// Every number of some lines of JSON, in order.
fn numbers(lines: &str) -> Vec<f64> {
    fn collect(value: &Value, numbers: &mut Vec<f64>) {
        match value {
            Value::Number(number) => numbers.extend(number.as_f64()),
            Value::Array(values) => values.iter().for_each(|value| collect(value, numbers)),
            Value::Object(values) => values.values().for_each(|value| collect(value, numbers)),
            _ => (),
        }
    }
    let mut found = vec![];
    lines.lines().for_each(|line| collect(&serde_json::from_str(line).unwrap(), &mut found));
    found
}

#[test]
fn adapters_by_contexts_merge_into_one_users_model() {
    let directory = tempdir().unwrap();
    let run = steered_run(directory.path(), "run", "condition = \"contexts\"\nrank = 2", "films = false\n");
    let policy = format!("{run}:round-1-honesty");
    let [mine, theirs] = [("mine", "1"), ("theirs", "-1")].map(|(name, side)| {
        let (examples, out) = (directory.path().join(format!("{name}.jsonl")), directory.path().join(name));
        fs::write(&examples, pairs(3, side)).unwrap();
        let made = spo(&["steer", "--model", &policy, "--examples", &path(&examples), "--out", &path(&out)]);
        assert_eq!(made.code, 0, "{}", made.err);
        path(&out)
    });
    let data = path(&directory.path().join("mine.jsonl"));
    let score = |model: &str, more: &[&str]| {
        let found = spo(&[&["score", "--model", model, "--data", &data, "--json"], more].concat());
        assert_eq!(found.code, 0, "{}", found.err);
        numbers(&found.out)
    };
    let differ = |a: &[f64], b: &[f64]| {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs() / a.abs().max(1.0)).fold(0.0, f64::max)
    };
    let [one, other] = [&mine, &theirs].map(|z| score(&policy, &["--steer", z]));
    assert!(differ(&one, &other) > 1e-4, "{one:?} {other:?}");
    for (z, steered) in [(&mine, &one), (&theirs, &other)] {
        let merged = format!("{z}-merged");
        let made = spo(&["export", "--model", &policy, "--format", "hf", "--steer", z, "--out", &merged]);
        assert_eq!(made.code, 0, "{}", made.err);
        let merged = score(&merged, &[]);
        assert!(differ(&merged, steered) < 1e-5, "{merged:?} {steered:?}");
    }
    let unsaid = spo(&["export", "--model", &policy, "--format", "hf", "--out", &path(&directory.path().join("x"))]);
    assert!(unsaid.code != 0 && unsaid.err.contains("--steer"), "{}", unsaid.err);
}
