//! A policy of a run is laid out as its run laid out text, whatever command it is given to; models that are written carry it.

use crate::support::{self, fixture, path, small_run, spo};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir};

#[track_caller]
fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> String {
    let ended = spo(arguments);
    assert_eq!(ended.code, 0, "{}", ended.err);
    ended.out
}

fn json_of(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn pairs() -> String {
    path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/truthfulqa/pairs.test.jsonl.gz"))
}

/// The report's numbers of a policy are those of `spo eval`, to the last digit of JSON.
#[test]
fn eval_gives_the_numbers_of_the_report() {
    let dir = tempdir().unwrap();
    let text = std::fs::read_to_string(small_run(dir.path())).unwrap();
    let text = text.replace("[training]", "system = \"Be brief.\"\nmax-length = 96\n[training]");
    std::fs::write(dir.path().join("run.toml"), text).unwrap();
    run(&["train", &path(&dir.path().join("run.toml")), "--set", "training.learning-rate=1e-3"]);
    let out = path(&dir.path().join("run"));
    let summary = json_of(dir.path().join("run/summary.json"));
    let named = |policy: &str| format!("{out}:{policy}");
    let common = ["--device", "cpu", "--limit", "32", "--data", &pairs(), "--json"].map(String::from);
    let eval = |policy: &str, more: &[&str]| -> Value {
        let own = ["eval", "--model", &named(policy), "--reference", &named("start")].map(String::from);
        let arguments = own.into_iter().chain(common.clone()).chain(more.iter().map(|word| word.to_string()));
        serde_json::from_str(&run(&arguments.collect::<Vec<_>>())).unwrap()
    };
    let mut compared = 0;
    for policy in ["round-1-honesty", "round-2-helpfulness", "round-2-helpfulness.free"] {
        let found = eval(policy, &[]);
        for score in found["scores"].as_array().unwrap() {
            let of_report = summary["matrix"].as_array().unwrap().iter().find(|of| {
                of["policy"] == policy && of["dimension"] == score["dimension"] && of["kind"] == score["kind"]
            });
            let (found, expected) = (&score["subsets"]["all"], &of_report.unwrap()["subsets"]["all"]);
            assert_eq!(found["accuracy"], expected["accuracy"], "{policy} {}", score["dimension"]);
            let margin = |of: &Value| of["mean_margin"].as_f64().unwrap();
            assert!((margin(found) - margin(expected)).abs() < 1e-4, "{found} {expected}");
            compared += 1;
        }
    }
    assert_eq!(compared, 6);
    let plain = eval("round-1-honesty", &["--template", "plain", "--system", ""]);
    assert_ne!(plain["scores"], eval("round-1-honesty", &[])["scores"], "what is asked for counts");

    exports_carry_it(dir.path(), &named("round-2-helpfulness"));
}

/// An exported policy is scored, benched and generates as the policy does.
fn exports_carry_it(dir: &Path, policy: &str) {
    let exported = path(&dir.join("exported"));
    run(&["export", "--model", policy, "--format", "hf", "--device", "cpu", "--out", &exported]);
    let manifest = json_of(dir.join("exported/manifest.json"));
    assert_eq!(manifest["text"]["prompt-format"], "Question: {prompt}\nAnswer:");
    assert_eq!(json_of(dir.join("run/model/manifest.json"))["text"], manifest["text"]);
    let score = |model: &str| {
        run(&["score", "--model", model, "--data", &pairs(), "--limit", "4", "--device", "cpu", "--json"])
    };
    let of_policy = score(policy);
    for model in [&exported, &path(&dir.join("run/model")), &path(&dir.join("run/policies/round-2-helpfulness"))] {
        assert_eq!(score(model), of_policy, "{model}");
    }
    let generate = |model: &str| {
        run(&["generate", "--model", model, "--prompt", "Why?", "--max-new-tokens", "8", "--device", "cpu", "--json"])
    };
    assert_eq!(generate(policy), generate(&exported));
    let ids = |text: &[&str]| run(&[&["data", "preview", &pairs(), "--rows", "1", "--json"], text].concat());
    let written = ["--system", "Be brief.", "--prompt-format", "Question: {prompt}\\nAnswer:"];
    let stories = support::stories();
    let written = [&["--tokenizer", &stories], &written[..], &["--response-format", " {response}"]].concat();
    assert_eq!(ids(&["--tokenizer", &exported]), ids(&written), "as the run file said");
    let bench = |model: &str| -> Value {
        let what = ["bench", "--model", model, "--data", &pairs(), "--what", "score"].map(String::from);
        let more = ["--device", "cpu", "--pairs", "4", "--epochs", "1", "--json"].map(String::from);
        serde_json::from_str(&run(&[what.to_vec(), more.to_vec()].concat())).unwrap()
    };
    assert_eq!(bench(policy)["mean_logp"], bench(&exported)["mean_logp"]);
}

/// A base model whose chat template ends a turn with another token than its EOS.
fn base(dir: &Path) -> PathBuf {
    let (from, model) = (PathBuf::from(fixture("trl/llama-tiny-policy")), dir.join("model"));
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        std::fs::copy(from.join(name), model.join(name)).unwrap();
    }
    for (name, key, value) in
        [("tokenizer_config.json", "eos_token", json!("<|endoftext|>")), ("config.json", "eos_token_id", json!(0))]
    {
        let mut file = json_of(model.join(name));
        file[key] = value;
        std::fs::write(model.join(name), file.to_string()).unwrap();
    }
    model
}

#[test]
fn generation_stops_where_the_trained_template_ends_a_turn() {
    let dir: TempDir = tempdir().unwrap();
    let model = base(dir.path());
    let rows = [("Which animal barks?", "The dog barks."), ("Which animal sings?", "The bird sings.")];
    let row =
        |(prompt, chosen): &(&str, &str)| json!({"prompt": prompt, "chosen": chosen, "rejected": "No."}).to_string();
    let rows: Vec<String> = rows.iter().map(row).collect();
    std::fs::write(dir.path().join("pairs.jsonl"), rows.join("\n")).unwrap();
    let file = format!(
        "schema = 1\nout = \"run\"\nholdout = 0\n[model]\npath = {model:?}\ndevice = \"cpu\"\n[[data]]\npath = \"pairs.jsonl\"\n\
         [warmup]\nsteps = 60\nlearning-rate = 3e-3\npairs-per-step = 2\n[training]\nsteps = 1\nlearning-rate = 1e-5\n\
         [[rounds]]\ndimension = \"preference\"\n"
    );
    std::fs::write(dir.path().join("run.toml"), file).unwrap();
    let ended = spo(&["train", &path(&dir.path().join("run.toml"))]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("nothing is held out"), "{}", ended.err);
    let report = std::fs::read_to_string(dir.path().join("run/report.md")).unwrap();
    assert!(report.contains("round-1-preference"), "{report}");
    let generation = json_of(dir.path().join("run/model/generation_config.json"));
    assert_eq!(generation["eos_token_id"], json!([0, 2]));
    for model in ["run", "run/model"] {
        let model = path(&dir.path().join(model));
        let prompt = ["--prompt", "Which animal barks?", "--max-new-tokens", "24", "--device", "cpu", "--json"];
        let line: Value =
            serde_json::from_str(&run(&[&["generate", "--model", &model], &prompt[..]].concat())).unwrap();
        assert_eq!((&line["ended"], &line["text"]), (&json!("stop"), &json!("The dog barks.")), "{line}");
    }
    // A round's gate, or a loss on the way, needs rows that are held out.
    let gate = ["--set", "rounds.0.gate.preference.accuracy=\">= 0.5\"", "--out", "other"];
    let refused = spo(&[&["train", &path(&dir.path().join("run.toml"))], &gate[..]].concat());
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(refused.err.contains("held-out data") && refused.err.contains("raise holdout"), "{}", refused.err);
}

#[test]
fn weights_that_are_not_numbers_are_no_scores() {
    let dir = tempdir().unwrap();
    let model = base(dir.path());
    let mut bytes = std::fs::read(model.join("model.safetensors")).unwrap();
    let end = bytes.len() - 4;
    bytes[end..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(model.join("model.safetensors"), bytes).unwrap();
    let rows = path(&dir.path().join("rows.jsonl"));
    std::fs::write(&rows, r#"{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}"#).unwrap();
    let ended = spo(&["score", "--model", &path(&model), "--data", &rows, "--device", "cpu", "--json"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{}", ended.err);
    assert!(ended.err.contains("tensor `") && ended.err.contains("is NaN"), "{}", ended.err);
}
