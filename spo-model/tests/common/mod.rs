//! What the tests of written models share.

use spo_model::{CausalLm, device};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Models with a tokenizer.
pub fn with_tokenizer() -> Vec<PathBuf> {
    let mut all = vec![root().join("spo-cli/assets/stories260K")];
    all.extend(
        ["llama-tiny-policy", "qwen3-tiny-policy", "llama3rope-tiny"]
            .map(|name| root().join("fixtures/trl").join(name)),
    );
    all
}

pub fn load(dir: &Path) -> CausalLm {
    CausalLm::from_dir(dir, None, &device::cpu()).unwrap()
}

/// Name, shape and bytes of every tensor of a directory's safetensors.
pub fn tensors(dir: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut all = BTreeMap::new();
    for file in files.filter(|path| path.extension().is_some_and(|end| end == "safetensors")) {
        let bytes = std::fs::read(file).unwrap();
        for (name, view) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
            all.insert(name, (view.shape().to_vec(), view.data().to_vec()));
        }
    }
    all
}
