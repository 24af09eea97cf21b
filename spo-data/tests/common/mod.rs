#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use spo_data::{DataError, DataSpec, Dataset, TemplateKind, TextSpec, Tokenizer, load_rows};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub fn fixture(name: &str) -> PathBuf {
    root().join("fixtures").join(name)
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

pub fn tiny(family: &str) -> Tokenizer {
    Tokenizer::from_dir(&fixture(&format!("trl/{family}-tiny-policy"))).unwrap()
}

pub fn stories() -> Tokenizer {
    Tokenizer::from_dir(&root().join("spo-cli/assets/stories260K")).unwrap()
}

/// Unpacks the named files of a tokenizer fixture.
pub fn unpacked(name: &str, files: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in files {
        let source = fixture("tokenizers").join(name).join(file);
        let mut bytes = std::fs::read(source).unwrap();
        if file.ends_with(".gz") {
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked).unwrap();
            bytes = unpacked;
        }
        std::fs::write(directory.path().join(file.trim_end_matches(".gz")), bytes).unwrap();
    }
    directory
}

pub fn objects(value: &Value) -> Vec<Map<String, Value>> {
    value.as_array().unwrap().iter().map(|row| row.as_object().unwrap().clone()).collect()
}

pub fn plain() -> TextSpec {
    TextSpec { template: TemplateKind::Plain, ..TextSpec::default() }
}

pub fn rows(rows: Value, text: &TextSpec, tokenizer: &Tokenizer) -> Result<Dataset, DataError> {
    load_rows("rows", objects(&rows), &DataSpec::default(), text, tokenizer)
}
