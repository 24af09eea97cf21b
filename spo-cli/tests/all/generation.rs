//! `spo generate` on files and `spo chat`, on real models.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Ended, path, small_run, spo, stories};
use serde_json::Value;
use tempfile::tempdir;

/// Objects of `spo generate … --json`, one per line.
fn generated(arguments: &[&str]) -> Vec<Value> {
    let model = stories();
    let common = ["generate", "--model", &model, "--device", "cpu", "--json", "--max-new-tokens", "24"];
    let ended = spo(&[&common[..], arguments].concat());
    assert_eq!(ended.code, 0, "{}", ended.err);
    ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `spo chat` with these arguments and lines.
fn chat(arguments: &[&str], input: &str) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spo"));
    command.arg("chat").args(arguments).env("NO_COLOR", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn prompts_of_a_file_do_not_depend_on_their_neighbours() {
    let directory = tempdir().unwrap();
    let (rows, lines) = (directory.path().join("prompts.jsonl"), directory.path().join("prompts.txt"));
    let prompts = ["Once upon a time", "Lily and Tom", "The dog", "One day, a boy", "She said"];
    fs::write(&lines, prompts.join("\n")).unwrap();
    let objects = prompts.iter().enumerate().map(|(i, text)| format!(r#"{{"id": "p{i}", "prompt": "{text}"}}"#));
    fs::write(&rows, objects.collect::<Vec<_>>().join("\n")).unwrap();
    let (rows, lines) = (path(&rows), path(&lines));
    for sampling in [&["--temperature", "0"][..], &["--temperature", "1", "--min-p", "0.02", "--top-k", "40"]] {
        let together = generated(&[&["--prompts", &rows][..], sampling].concat());
        let alone = generated(&[&["--prompts", &rows, "--batch", "1"][..], sampling].concat());
        let undrafted = generated(&[&["--prompts", &rows, "--batch", "2", "--drafts", "0"][..], sampling].concat());
        assert_eq!(together, alone);
        assert_eq!(together, undrafted);
        let names: Vec<&str> = together.iter().map(|line| line["id"].as_str().unwrap()).collect();
        assert_eq!(names, ["p0", "p1", "p2", "p3", "p4"]);
        let from_text = generated(&[&["--prompts", &lines][..], sampling].concat());
        assert!(from_text.iter().zip(&together).all(|(a, b)| a["ids"] == b["ids"]));
        assert!(from_text[1]["id"].as_str().unwrap().ends_with("prompts.txt:2"));
    }
}

#[test]
fn an_answer_ends_before_a_stop_text_and_the_penalty_changes_it() {
    let plain = &generated(&["--prompt", "Once upon a time"])[0];
    assert_eq!(plain["ended"], "length");
    let text = plain["text"].as_str().unwrap();
    assert!(text.contains("there was a little"), "{text}");
    let stopped = &generated(&["--prompt", "Once upon a time", "--stop", "a little"])[0];
    assert_eq!(stopped["ended"], "text");
    assert_eq!(stopped["text"], text[..text.find("a little").unwrap()]);
    let penalised = &generated(&["--prompt", "Once upon a time", "--repetition-penalty", "20"])[0];
    assert_ne!(penalised["text"], plain["text"]);
    let rounded = &generated(&["--prompt", "Once upon a time", "--weight-format", "q8"])[0];
    assert_eq!(rounded["ids"].as_array().unwrap().len(), 24);
}

#[test]
fn bad_prompts_are_named() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("prompts.jsonl");
    for (content, named) in [
        ("{\"prompt\": \"Once\"}\n{\"promt\": \"x\"}", "prompts.jsonl:2"),
        ("{\"prompt\": 3}", "prompts.jsonl:1"),
        ("{\"prompt_ids\": [1, 99999]}", "99999"),
        ("\n", "no row is left"),
    ] {
        fs::write(&file, content).unwrap();
        let ended = spo(&["generate", "--model", &stories(), "--prompts", &path(&file), "--device", "cpu"]);
        assert_eq!(ended.code, 1, "{}", ended.err);
        assert!(ended.err.contains(named), "{named}: {}", ended.err);
    }
    let model = stories();
    for bad in [["--min-p", "2"], ["--repetition-penalty", "0"], ["--batch", "0"], ["--stop", ""]] {
        let ended = spo(&[&["generate", "--model", &model, "--prompt", "Once", "--device", "cpu"], &bad[..]].concat());
        assert_eq!(ended.code, 2, "{bad:?}: {}", ended.err);
    }
}

#[test]
fn a_conversation_through_a_pipe() {
    let model = stories();
    let arguments = [model.as_str(), "--device", "cpu", "--max-new-tokens", "12"];
    let ended = chat(&arguments, "Once upon a time\n/nothing\n/reset\nOnce upon a time\n/help\n/quit\nnever read\n");
    assert_eq!(ended.code, 0, "{}", ended.err);
    let lines: Vec<&str> = ended.out.lines().collect();
    assert!(lines[0].contains("there was"), "{}", ended.out);
    assert_eq!(lines[0], lines[1], "after /reset nothing is left of the first turn");
    assert!(ended.out.contains("/compare TEXT") && !ended.out.contains("never"));
    assert!(ended.err.contains("/nothing"), "{}", ended.err);
    let ended = chat(&["does-not-exist", "--device", "cpu"], "hello\n");
    assert!(ended.err.contains("does-not-exist"), "{}", ended.err);
}

#[test]
fn policies_of_a_run_answer_in_turn() {
    let directory = tempdir().unwrap();
    let file = small_run(directory.path());
    let trained = spo(&["train", &path(&file)]);
    assert_eq!(trained.code, 0, "{}", trained.err);
    let run = path(&directory.path().join("run"));
    let policies: Vec<String> = fs::read_dir(directory.path().join("run/policies"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let arguments = [run.as_str(), "--device", "cpu", "--max-new-tokens", "8"];
    let ended = chat(&arguments, "/policy\n/compare Why?\n/policy start\nWhy?\n/policy nobody\n");
    assert_eq!(ended.code, 0, "{}", ended.err);
    for name in policies.iter().map(String::as_str).chain(["start"]) {
        assert!(ended.out.contains(&format!("[{name}]")), "{name}: {}", ended.out);
    }
    let of_start = ended.out.split("[start]\n").nth(1).unwrap().lines().next().unwrap();
    assert_eq!(ended.out.lines().last().unwrap().trim(), of_start, "the answer is the one that /compare showed");
    assert!(ended.err.contains("nobody") && ended.err.contains("start"), "{}", ended.err);
}
