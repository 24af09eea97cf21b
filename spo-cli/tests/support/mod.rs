//! Running the program.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a run of the program left.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `spo` with these arguments.
pub fn spo<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Ended {
    ended(Command::new(env!("CARGO_BIN_EXE_spo")).args(arguments))
}

/// What it printed, where it must end well.
#[track_caller]
pub fn good(arguments: &[&str]) -> String {
    let ended = spo(arguments);
    assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.err);
    ended.out
}

/// What it said, where it must not.
#[track_caller]
pub fn refused(arguments: &[&str]) -> String {
    let ended = spo(arguments);
    assert_ne!(ended.code, 0, "{arguments:?}: {}", ended.out);
    ended.err
}

/// Runs a prepared command to its end.
pub fn ended(command: &mut Command) -> Ended {
    let output = command.env("NO_COLOR", "1").output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A path in the repository's `fixtures`.
pub fn fixture(name: &str) -> String {
    path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name))
}

/// The built-in model's directory.
pub fn stories() -> String {
    path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260K"))
}

pub fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A small run of the built-in model on the built-in pairs: `NAME.toml` in a directory.
pub fn small_run(directory: &Path) -> PathBuf {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let text = format!(
        r#"schema = 1
out = "run"
[model]
path = {model:?}
device = "cpu"
[[data]]
path = {train:?}
limit = 48
[[data]]
path = {test:?}
split = "test"
limit = 32
[text]
prompt-format = "Question: {{prompt}}\nAnswer:"
response-format = " {{response}}"
[training]
steps = 2
pairs-per-step = 4
[[rounds]]
dimension = "honesty"
[[rounds]]
dimension = "helpfulness"
[[rounds.controls]]
name = "free"
lambda = 0.0
[evaluation]
kl-samples = 2
kl-max-new-tokens = 4
samples = 1
"#,
        model = assets.join("stories260K"),
        train = assets.join("truthfulqa/pairs.train.jsonl.gz"),
        test = assets.join("truthfulqa/pairs.test.jsonl.gz"),
    );
    let file = directory.join("run.toml");
    std::fs::write(&file, text).unwrap();
    file
}
