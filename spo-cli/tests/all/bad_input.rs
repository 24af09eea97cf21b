//! Everything a user can get wrong ends with a message that says what, where and what to do, and loses nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Ended, ended, fixture, path, small_run, spo, stories};
use tempfile::{TempDir, tempdir};

#[track_caller]
fn refused(found: &Ended, code: i32, words: &[&str]) {
    assert_eq!(found.code, code, "{}", found.err);
    for word in words {
        assert!(found.err.contains(word), "no {word:?} in:\n{}", found.err);
    }
    assert!(!found.err.contains("panicked"), "{}", found.err);
}

/// A copy of the built-in model that may be damaged.
fn model() -> TempDir {
    let directory = tempdir().unwrap();
    for entry in fs::read_dir(stories()).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, directory.path().join(from.file_name().unwrap())).unwrap();
    }
    directory
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let file = directory.join(name);
    fs::write(&file, text).unwrap();
    path(&file)
}

const ROW: &str = r#"{"prompt": "Why?", "chosen": " Because.", "rejected": " No."}"#;

fn score(model: &Path, rows: &str) -> Ended {
    let directory = tempdir().unwrap();
    let file = write(directory.path(), "rows.jsonl", rows);
    spo(&["score", "--model", &path(model), "--data", &file, "--device", "cpu", "--json"])
}

fn train(directory: &Path, more: &[&str]) -> Ended {
    let file = path(&directory.join("run.toml"));
    spo(&[&["train", &file], more].concat())
}

#[test]
fn a_missing_file() {
    let missing = spo(&["score", "--model", &stories(), "--data", "absent.jsonl", "--device", "cpu"]);
    refused(&missing, 1, &["no file matches \"absent.jsonl\""]);
    let missing = spo(&["score", "--model", "absent", "--data", "absent.jsonl", "--device", "cpu"]);
    refused(&missing, 1, &["absent: no such directory"]);
    refused(&spo(&["train", "absent.toml"]), 2, &["absent.toml: cannot read the run file", "spo init"]);
    let words = ["absent.toml: cannot read the study file", "a study file names a run file, seeds and arms"];
    refused(&spo(&["study", "absent.toml"]), 2, &words);
    refused(&spo(&["study", "--from", "absent.json"]), 1, &["absent.json"]);
    refused(&spo(&["study"]), 2, &["STUDY.toml"]);
    refused(&spo(&["study", "--from", "a.json", "b.json"]), 2, &["found 2 files, expected --out DIR"]);
    let study = concat!(env!("CARGO_MANIFEST_DIR"), "/../recipes/study/study.toml");
    refused(&spo(&["study", study, "--seeds", "1,9"]), 2, &["--seeds: found 9, expected some of 1, 2, 3, 4, 5"]);
    let missing = spo(&["generate", "--model", &fixture("trl"), "--ids", "1", "--device", "cpu"]);
    refused(&missing, 1, &["config.json is missing", "name a Hugging Face model directory"]);
}

#[test]
fn truncated_weights() {
    let model = model();
    let weights = model.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    for length in [4, 400, bytes.len() - 10] {
        fs::write(&weights, &bytes[..length]).unwrap();
        refused(&score(model.path(), ROW), 1, &["model.safetensors", "damaged", "copy or download it again"]);
    }
}

#[test]
fn a_wrong_tensor_shape() {
    let model = model();
    let config = model.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"intermediate_size\": 172", "\"intermediate_size\": 176")).unwrap();
    refused(&score(model.path(), ROW), 1, &["found shape [172, 64], expected [176, 64]", "same model"]);
}

#[test]
fn an_unknown_model_type() {
    let model = model();
    let config = model.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"model_type\": \"llama\"", "\"model_type\": \"lama\"")).unwrap();
    refused(&score(model.path(), ROW), 1, &["model_type `lama` is not supported", "did you mean `llama`?"]);
}

#[test]
fn a_typo_in_the_run_file() {
    let directory = tempdir().unwrap();
    let file = small_run(directory.path());
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("pairs-per-step", "pairs-per-stop")).unwrap();
    let found = train(directory.path(), &[]);
    refused(&found, 2, &["unknown key `pairs-per-stop`", "did you mean `pairs-per-step`?", "run.toml:18:1"]);
    let mut shown = found.err.lines().filter(|line| line.contains("pairs-per-stop = 4"));
    assert!(shown.next().is_some(), "the line is shown:\n{}", found.err);
    fs::write(&file, text.replacen("limit = 48", "limit = 48\n[[data]]\npath = \"absent/*.jsonl\"", 1)).unwrap();
    let missing = [
        "run.toml:10:8",
        "`data.1.path` is",
        "absent/*.jsonl",
        "expected a path that names files",
        "the run file's directory",
    ];
    refused(&train(directory.path(), &[]), 2, &missing);
    fs::write(&file, text).unwrap();
    refused(&train(directory.path(), &["--set", "rounds.1.lamda=2"]), 2, &["--set rounds.1.lamda=2", "`lambda`"]);
    let router = ["no experts to spread tokens over", "training.router-loss"];
    refused(&train(directory.path(), &["--set", "training.router-loss=0.1"]), 2, &router);
    refused(&train(directory.path(), &["--set", "rounds.7.lambda=2"]), 2, &["`7` is not an index"]);
    assert!(!directory.path().join("run").exists());
}

#[test]
fn a_row_without_a_key() {
    let rows = format!("{ROW}\n{}\n", r#"{"prompt": "Why?", "chosen": " Because."}"#);
    refused(&score(Path::new(&stories()), &rows), 1, &["rows.jsonl:2", "needs the key \"rejected\""]);
    let broken = format!("{ROW}\n{{\"prompt\": \n");
    refused(&score(Path::new(&stories()), &broken), 1, &["rows.jsonl:2", "JSON", "mend the row"]);
}

#[test]
fn an_empty_answer_is_dropped_and_counted() {
    let rows = format!("{ROW}\n{}\n", r#"{"prompt": "Why?", "chosen": " Because.", "rejected": " "}"#);
    let found = score(Path::new(&stories()), &rows);
    refused(&found, 0, &["1 row dropped: an answer is empty (rows.jsonl:2)"]);
    assert_eq!(found.out.lines().count(), 1);
    let empty = r#"{"prompt": "Why?", "chosen": "", "rejected": ""}"#;
    refused(&score(Path::new(&stories()), empty), 1, &["1 row dropped", "no row is left"]);
}

#[test]
fn a_prompt_beyond_the_context() {
    let long = ROW.replace("Why?", &"Why? ".repeat(600));
    refused(
        &score(Path::new(&stories()), &long),
        1,
        &["rows.jsonl:1", "tokens, but the model's context is 512", "--max-length"],
    );
    let ids = vec!["5"; 600].join(",");
    let found = spo(&["generate", "--model", &stories(), "--ids", &ids, "--device", "cpu"]);
    refused(&found, 1, &["the prompt has 600 tokens, but the model's context is 512"]);
    let found = spo(&["generate", "--model", &stories(), "--ids", "1,9999", "--device", "cpu"]);
    refused(&found, 1, &["token id 9999, but the vocabulary has 512 entries"]);
}

#[test]
fn an_unknown_dimension() {
    let directory = tempdir().unwrap();
    small_run(directory.path());
    let found = train(directory.path(), &["--set", "rounds.1.dimension=helpfullness"]);
    refused(&found, 2, &["`rounds.1.dimension` is \"helpfullness\"", "\"honesty\" (", "did you mean \"helpfulness\"?"]);
    assert!(!directory.path().join("run").exists());
}

#[test]
fn a_device_that_is_not_there() {
    let directory = tempdir().unwrap();
    small_run(directory.path());
    refused(
        &train(directory.path(), &["--device", "tpu"]),
        2,
        &["device `tpu`", "no such kind of device", "this build has: ", "cpu; other devices need"],
    );
    refused(&train(directory.path(), &["--device", "cpu:3"]), 2, &["there is one cpu"]);
    let found = spo(&["generate", "--model", &stories(), "--ids", "1", "--device", "cuda:99"]);
    refused(&found, 2, &["device `cuda:99` is not available"]);
}

#[test]
fn an_existing_run_directory() {
    let directory = tempdir().unwrap();
    small_run(directory.path());
    fs::create_dir(directory.path().join("run")).unwrap();
    let kept = write(&directory.path().join("run"), "events.jsonl", "{}\n");
    refused(&train(directory.path(), &[]), 1, &["run: ", "--out"]);
    assert_eq!(fs::read_to_string(kept).unwrap(), "{}\n");
    let out = path(&directory.path().join("run"));
    refused(&spo(&["quickstart", "--out", &out]), 1, &["the directory exists and is not empty"]);
    let file = write(directory.path(), "mine.toml", "mine");
    refused(&spo(&["init", &file]), 1, &["mine.toml: the file exists", "nothing was written"]);
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
}

#[test]
fn a_full_disk_behind_standard_output() {
    if !Path::new("/dev/full").exists() {
        println!("skipped: this system has no /dev/full");
        return;
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_spo"));
    let found = ended_with_stdout(command.args(["list", "objectives"]), full);
    refused(&found, 1, &["cannot write the output", "No space left"]);
}

fn ended_with_stdout(command: &mut Command, file: fs::File) -> Ended {
    let output = command.stdout(file).stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    Ended { code: output.status.code().unwrap(), out: String::new(), err: String::from_utf8(output.stderr).unwrap() }
}

/// A file size limit stands for a full disk: writing beyond it fails in the same place.
#[cfg(unix)]
#[test]
fn a_run_directory_that_cannot_grow() {
    let directory = tempdir().unwrap();
    let file = path(&small_run(directory.path()));
    // 64 blocks of 512 bytes (1,024 in some shells): smaller than the weights. The signal is ignored, so that the write fails.
    let script = "trap '' XFSZ; ulimit -f 64 && exec \"$0\" train \"$1\"";
    let found = ended(Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_spo"), &file]));
    refused(&found, 1, &["run/policies", "too large"]);
    assert!(directory.path().join("run/plan.json").exists(), "what was written before stays");
}

#[test]
fn nothing_to_compare() {
    let directory = tempdir().unwrap();
    let rows = write(directory.path(), "rows.jsonl", r#"{"prompt_ids": [1, 2], "completion_ids": [3]}"#);
    let found = spo(&["eval", "--model", &stories(), "--reference", &stories(), "--data", &rows, "--device", "cpu"]);
    refused(&found, 1, &["rows.jsonl: no pairs are left"]);
}

#[test]
fn wrong_arguments() {
    refused(&spo(&["score"]), 2, &["--model"]);
    refused(&spo(&["generate", "--model", &stories()]), 2, &["--prompt"]);
    refused(&spo(&["traim"]), 2, &["train"]);
    let rows = tempdir().unwrap();
    let file = write(rows.path(), "rows.jsonl", "{\"chosen_logp\": -1}\n");
    refused(&spo(&["loss", "--objective", "dpoo", "--input", &file]), 2, &["did you mean `dpo`?"]);
    refused(&spo(&["loss", "--objective", "dpo", "--set", "bata=1", "--input", &file]), 2, &["`beta`"]);
    refused(&spo(&["loss", "--objective", "dpo", "--input", &file]), 1, &["rows.jsonl", "line 1", "rejected_logp"]);
    let text = spo(&[
        "score",
        "--model",
        &fixture("families/llama"),
        "--data",
        &fixture("hh_harmless/test.jsonl.gz"),
        "--device",
        "cpu",
    ]);
    refused(&text, 1, &["no tokenizer", "token ids"]);
}

#[test]
fn a_missed_gate_ends_with_exit_code_3() {
    let directory = tempdir().unwrap();
    small_run(directory.path());
    let gate = "rounds.0.gate={honesty={accuracy=\">= 0.999\"}}";
    let found = train(directory.path(), &["--set", gate]);
    refused(&found, 3, &["round-1-honesty misses its gate: honesty accuracy is 0.", "wanted >= 0.999", "roll-back"]);
    assert!(directory.path().join("run/report.html").exists());
    assert!(!directory.path().join("run/policies/round-2-helpfulness").exists());
    let found = train(directory.path(), &["--set", "rounds.0.gate={honest={accuracy=\">= 0.5\"}}"]);
    refused(&found, 2, &["rounds.0.gate", "did you mean \"honesty\"?"]);
}
