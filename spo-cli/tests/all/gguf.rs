//! Every command that takes a model takes a GGUF file, and says the same of it as of the model that the file was made from.

use crate::support::{path, small_run, spo, stories};
use serde_json::Value;
use spo_model::export::Manifest;
use std::path::{Path, PathBuf};
use tempfile::tempdir;

#[track_caller]
fn out<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> String {
    let found = spo(arguments);
    assert_eq!(found.code, 0, "{}", found.err);
    found.out
}

/// The built-in model as a GGUF file.
fn exported(directory: &Path, dtype: &str) -> String {
    let to = directory.join(dtype);
    out(&[
        "export",
        "--model",
        &stories(),
        "--format",
        "gguf",
        "--dtype",
        dtype,
        "--out",
        &path(&to),
        "--device",
        "cpu",
    ]);
    path(&to.join(format!("model-{dtype}.gguf")))
}

fn pairs() -> String {
    path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/truthfulqa/pairs.test.jsonl.gz"))
}

#[test]
fn commands_say_of_a_file_what_they_say_of_its_model() {
    let directory = tempdir().unwrap();
    let (file, dir, pairs) = (exported(directory.path(), "f32"), stories(), pairs());
    let same = |arguments: &[&str]| {
        let with = |model: &str| {
            out(&arguments
                .iter()
                .map(|argument| if *argument == "MODEL" { model } else { argument })
                .collect::<Vec<_>>())
        };
        let (found, expected) = (with(&file), with(&dir));
        assert_eq!(found.replace(&file, &dir), expected, "{arguments:?}");
        assert!(!found.is_empty());
    };
    let prompt = ["--prompt-format", "Question: {prompt}\\nAnswer:"];
    same(&["tokenize", "--tokenizer", "MODEL", "--text", "Once upon a time <s> é 12", "--json"]);
    same(&[&["data", "preview", &pairs, "--tokenizer", "MODEL", "--limit", "3"][..], &prompt].concat());
    same(&["score", "--model", "MODEL", "--data", &pairs, "--limit", "4", "--json", "--device", "cpu"]);
    same(&["generate", "--model", "MODEL", "--prompt", "Once", "--temperature", "0", "--json", "--device", "cpu"]);
    same(&[
        "eval",
        "--model",
        "MODEL",
        "--reference",
        "MODEL",
        "--data",
        &pairs,
        "--limit",
        "8",
        "--json",
        "--device",
        "cpu",
    ]);
    let bench = ["bench", "--model", &file, "--data", &pairs, "--pairs", "4", "--batch", "1", "--epochs", "1"];
    let bench = out(&[&bench[..], &["--device", "cpu", "--new-tokens", "8", "--json"]].concat());
    assert_eq!(bench.lines().count(), 3, "{bench}");
    let hf = directory.path().join("hf");
    out(&["export", "--model", &file, "--format", "hf", "--out", &path(&hf), "--device", "cpu"]);
    let score =
        |model: &str| out(&["score", "--model", model, "--data", &pairs, "--limit", "4", "--json", "--device", "cpu"]);
    assert_eq!(score(&path(&hf)), score(&dir));
}

/// Projections that stay in their blocks give what decoded ones give, to the last digit.
#[test]
fn blocks_may_stay_as_they_are_stored() {
    let directory = tempdir().unwrap();
    let (file, plain, pairs) = (exported(directory.path(), "q8_0"), exported(directory.path(), "f32"), pairs());
    let format = ["--prompt-format", "Question: {prompt}\\nAnswer:", "--device", "cpu"];
    for command in [
        &["score", "--data", &pairs, "--limit", "3", "--json", "--model", &file][..],
        &["generate", "--temperature", "0", "--json", "--prompt", "Once", "--model", &file],
    ] {
        let command = [command, &format].concat();
        let expected = out(&command);
        assert_eq!(out(&[&command[..], &["--as-stored"]].concat()), expected, "{command:?}");
        assert!(!expected.is_empty());
    }
    let refused =
        spo(&["score", "--data", &pairs, "--limit", "3", "--model", &plain, "--device", "cpu", "--as-stored"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("without one in blocks") && refused.err.contains("--as-stored"), "{}", refused.err);
}

/// The run file of a small run on this model, with adapters.
fn run(directory: &Path, model: &str) -> PathBuf {
    let file = small_run(directory);
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace(
        &format!("{:?}", Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260K")),
        &format!("{model:?}"),
    );
    std::fs::write(&file, format!("{text}\n[lora]\nrank = 2\n")).unwrap();
    file
}

#[test]
fn a_run_starts_from_a_file_and_goes_on() {
    let directory = tempdir().unwrap();
    let model = exported(directory.path(), "q8_0");
    let file = path(&run(directory.path(), &model));
    assert!(out(&["plan", &file]).contains(&model));
    out(&["train", &file]);
    let done = directory.path().join("run");
    let manifest: Value = serde_json::from_str(&std::fs::read_to_string(done.join("manifest.json")).unwrap()).unwrap();
    let inputs = manifest["manifest"]["model"].as_array().unwrap();
    let length = std::fs::metadata(&model).unwrap().len();
    assert_eq!(inputs.len(), 1);
    assert_eq!((&inputs[0]["name"], &inputs[0]["bytes"]), (&"model-q8_0.gguf".into(), &length.into()));
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        assert!(done.join("model").join(name).exists(), "{name}");
    }
    let policy = format!("{}:round-2-helpfulness", path(&done));
    let said =
        |model: &str| out(&["generate", "--model", model, "--prompt", "Once", "--temperature", "0", "--device", "cpu"]);
    assert_eq!(said(&policy), said(&path(&done.join("model"))));
    // The layout of the run's text goes with the file.
    let to = directory.path().join("policy");
    let dtype = ["--format", "gguf", "--dtype", "f32", "--device", "cpu"];
    out(&[&["export", "--model", &policy, "--out", &path(&to)][..], &dtype].concat());
    let file = to.join("model-f32.gguf");
    assert_eq!(said(&policy), said(&path(&file)));
    assert!(Manifest::text_of(&file).unwrap().is_some());
    let elsewhere = directory.path().join("alone.gguf");
    std::fs::copy(&file, &elsewhere).unwrap();
    assert_eq!(Manifest::text_of(&elsewhere).unwrap(), None);
    // Another file under its name is another model.
    std::fs::write(&model, std::fs::read(exported(directory.path(), "f16")).unwrap()).unwrap();
    let found = spo(&["train", "--resume", &path(&done)]);
    assert!(found.code != 0 && found.err.contains("model-q8_0.gguf has other bytes"), "{}", found.err);
}

#[test]
fn what_cannot_be_read_is_named() {
    let directory = tempdir().unwrap();
    let file = path(&directory.path().join("model.gguf"));
    let found = |arguments: &[&str]| {
        let found = spo(arguments);
        assert_eq!(found.code, 1, "{}", found.err);
        found.err.replace("\n", " ")
    };
    let tokenize = ["tokenize", "--tokenizer", &file, "--text", "x"];
    assert!(found(&tokenize).contains("cannot be read"), "{}", found(&tokenize));
    std::fs::write(&file, b"GGML").unwrap();
    assert!(found(&tokenize).contains("expected GGUF"), "{}", found(&tokenize));
    let generate = ["generate", "--model", &file, "--prompt", "x"];
    assert!(found(&generate).contains("expected GGUF"), "{}", found(&generate));
}
