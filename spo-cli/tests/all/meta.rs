//! `--meta`: what a policy is asked for in words.
#![cfg(unix)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{path, small_run, spo, stories};
use serde_json::Value;
use tempfile::tempdir;

const TEXT: &str = "Be honest.";

/// A run whose meta-prompts stand in this place.
fn trained(directory: &Path, place: &str) -> String {
    let file = small_run(directory);
    let text = fs::read_to_string(&file).unwrap();
    let one = text.split("[[rounds]]\ndimension = \"helpfulness\"").next().unwrap();
    let rest = text.split("lambda = 0.0\n").nth(1).unwrap();
    let one = one.replace("dimension = \"honesty\"", "dimension = \"asked\"");
    let meta = format!(
        "limit = 48\nmeta-prompts = {{ place = \"{place}\", texts = {{ honesty = [\"{TEXT}\"], helpfulness = [\"Help.\"] }} }}\n"
    );
    fs::write(&file, format!("{}{rest}", one.replacen("limit = 48\n", &meta, 1))).unwrap();
    let out = path(&directory.join(place));
    let found = spo(&["train", &path(&file), "--out", &out]);
    assert_eq!(found.code, 0, "{}", found.err);
    format!("{out}:round-1-asked")
}

fn ids(arguments: &[&str]) -> Value {
    let found = spo(&[&["generate", "--json", "--max-new-tokens", "12"], arguments].concat());
    assert_eq!(found.code, 0, "{}", found.err);
    serde_json::from_str::<Value>(&found.out).unwrap()["ids"].clone()
}

/// What `spo chat` writes when it is told these lines.
fn chat(arguments: &[&str], lines: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spo"));
    command.arg("chat").args(arguments).args(["--max-new-tokens", "12"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_text_stands_where_that_of_the_run_stood() {
    let directory = tempdir().unwrap();
    let (system, user) = (trained(directory.path(), "system"), trained(directory.path(), "user"));
    let asked = |model: &str, more: &[&str]| ids(&[&["--model", model, "--prompt", "Why is it so?"], more].concat());
    let laid = |model: &str, prompt: &str, format: &str| {
        ids(&["--model", model, "--prompt", prompt, "--prompt-format", format])
    };
    assert_eq!(
        asked(&system, &["--meta", TEXT]),
        laid(&system, "Why is it so?", "Be honest.\\n\\nQuestion: {prompt}\\nAnswer:")
    );
    let in_turn = laid(&user, "Be honest.\n\nWhy is it so?", "Question: {prompt}\\nAnswer:");
    assert_eq!(asked(&user, &["--meta", TEXT]), in_turn);
    let moved = ["--meta", TEXT, "--meta-place", "user"];
    assert_eq!(asked(&system, &moved), laid(&system, "Be honest.\n\nWhy is it so?", "Question: {prompt}\\nAnswer:"));
    // A model that no run names takes it as its system message.
    let plain = asked(&stories(), &["--meta", TEXT]);
    assert_eq!(plain, laid(&stories(), "Why is it so?", "Be honest.\\n\\n{prompt}"));

    let run = system.rsplit_once(':').unwrap().0;
    let asked = chat(&[run, "--meta", TEXT], "Why is it so?\n");
    assert_eq!(chat(&[run], "/meta Be honest.\nWhy is it so?\n"), asked);
    assert_eq!(chat(&[run, "--meta", TEXT], "/meta\nWhy is it so?\n"), chat(&[run], "Why is it so?\n"));
    assert_ne!(chat(&[run], "Why is it so?\n"), asked);
}

#[test]
fn token_ids_have_no_place_for_a_text() {
    let model = stories();
    for more in [&["--ids", "1,2"][..], &["--prompt", "a", "--meta-place", "user"]] {
        let meta: &[&str] = if more.len() == 2 { &["--meta", TEXT] } else { &[] };
        let found = spo(&[&["generate", "--model", &model], more, meta].concat());
        assert!(found.code != 0 && found.err.contains("--meta"), "{}", found.err);
    }
}

/// What `spo eval` says of a policy against the built-in model.
fn evaluated(model: &str, more: &[&str]) -> Value {
    let data = path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/truthfulqa/pairs.test.jsonl.gz"));
    let limits = ["--limit", "12", "--resamples", "40", "--json"];
    let eval = ["eval", "--model", model, "--reference", &stories(), "--data", &data];
    let found = spo(&[&eval, &limits[..], more].concat());
    assert_eq!(found.code, 0, "{}", found.err);
    serde_json::from_str::<Value>(&found.out).unwrap()["scores"][0]["subsets"].clone()
}

#[test]
fn an_exported_model_remembers_its_meta_prompts() {
    let directory = tempdir().unwrap();
    let policy = trained(directory.path(), "user");
    let run = policy.rsplit_once(':').unwrap().0;
    let exported = |format: &str| {
        let out = path(&directory.path().join(format));
        let found = spo(&["export", "--model", &policy, "--format", format, "--dtype", "f32", "--out", &out]);
        assert_eq!(found.code, 0, "{}", found.err);
        out
    };
    let (hf, gguf, own) = (exported("hf"), exported("gguf"), format!("{run}/model"));
    let gguf = format!("{gguf}/model-f32.gguf");
    let asked = |model: &str, meta: &[&str]| ids(&[&["--model", model, "--prompt", "Why is it so?"], meta].concat());
    let (by_text, by_name) = (asked(&policy, &["--meta", TEXT]), ["--meta", "honesty"]);
    assert_ne!(by_text, asked(&policy, &[]));
    // By text in the run's place, and by name, whichever way it was written.
    for model in [&policy, &hf, &gguf, &own] {
        assert_eq!(asked(model, &["--meta", TEXT]), by_text, "{model}");
        assert_eq!(asked(model, &by_name), by_text, "{model}");
    }
    let said = chat(&[&hf, "--meta", "honesty"], "Why is it so?\n");
    assert_eq!(said, chat(&[run, "--meta", TEXT], "Why is it so?\n"));
    assert_eq!(chat(&[&hf], "/meta honesty\nWhy is it so?\n"), said);
    let scores = evaluated(&policy, &["--meta", TEXT]);
    assert!(scores.is_object(), "{scores}");
    assert_eq!(evaluated(&hf, &by_name), scores);
    assert_ne!(evaluated(&hf, &[]), scores);

    // Exported once more it still does. An older export says nothing: the name is a text, in the system message.
    let again = path(&directory.path().join("again"));
    assert_eq!(spo(&["export", "--model", &hf, "--format", "hf", "--out", &again]).code, 0);
    assert_eq!(asked(&again, &by_name), by_text);
    let manifest = format!("{hf}/manifest.json");
    let mut older: Value = serde_json::from_str(&fs::read_to_string(&manifest).unwrap()).unwrap();
    let meta = older.as_object_mut().unwrap().shift_remove("meta-prompts").unwrap();
    assert_eq!((&meta["place"], &meta["texts"]["honesty"][0]), (&"user".into(), &TEXT.into()));
    let refused = spo(&["generate", "--model", &hf, "--prompt", "a", "--meta", "honestly"]);
    assert!(refused.code != 0 && refused.err.contains("helpfulness, honesty"), "{}", refused.err);
    fs::write(&manifest, older.to_string()).unwrap();
    let text = "honesty\\n\\nQuestion: {prompt}\\nAnswer:";
    assert_eq!(asked(&hf, &by_name), ids(&["--model", &hf, "--prompt", "Why is it so?", "--prompt-format", text]));
    older["meta-prompts"] = Value::from("Be honest.");
    fs::write(&manifest, older.to_string()).unwrap();
    let broken = spo(&["generate", "--model", &hf, "--prompt", "a"]);
    assert!(broken.code != 0 && broken.err.contains("manifest.json"), "{}", broken.err);
}

#[test]
fn a_scorer_reads_no_text_of_the_policy() {
    let data = path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/truthfulqa/pairs.test.jsonl.gz"));
    let found = spo(&["score", "--scorer", "rules:length=3", "--data", &data, "--meta", TEXT]);
    assert!(found.code != 0 && found.err.contains("--model with it"), "{}", found.err);
}
