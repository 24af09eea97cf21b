//! What run files of several tests have in common: the built-in model and pairs.
#![allow(dead_code, missing_docs)]

use std::path::{Path, PathBuf};

/// How the built-in model reads questions and answers.
pub const TEXT: &str = r#"[text]
prompt-format = "Question: {prompt}\nAnswer:"
response-format = " {response}"
"#;

pub fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spo-cli/assets")
}

/// The tables of the model, and of its first rows to train and to test on.
pub fn tables(device: &str, train_rows: usize, test_rows: usize) -> String {
    format!(
        r#"[model]
path = {model:?}
device = "{device}"
[[data]]
path = {train:?}
limit = {train_rows}
[[data]]
path = {test:?}
split = "test"
limit = {test_rows}
"#,
        model = assets().join("stories260K"),
        train = assets().join("truthfulqa/pairs.train.jsonl.gz"),
        test = assets().join("truthfulqa/pairs.test.jsonl.gz"),
    )
}
