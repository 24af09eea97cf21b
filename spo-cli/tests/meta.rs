//! `--meta`: what a policy is asked for in words.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code)]
mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{path, small_run, spo, stories};
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
