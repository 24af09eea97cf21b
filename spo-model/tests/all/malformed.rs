//! Damaged and hostile checkpoints: a clear error each, and never more memory than the file and its header explain.

use spo_model::load::{Checkpoint, Storage};
use spo_model::{CausalLm, ModelError, device};
use std::path::{Path, PathBuf};

fn llama() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/families/llama")
}

/// A file with this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn tensor(dtype: &str, shape: &str, start: u64, end: u64) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

fn error(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(error, ModelError::Safetensors { .. }), "{error:?}");
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    assert!(error.hint().is_some());
    error.to_string()
}

#[test]
fn damaged_headers_are_told_apart() {
    let mut lies = file("{}", 0);
    lies[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut beyond = file("{}", 0);
    beyond[..8].copy_from_slice(&1000u64.to_le_bytes());
    let overlapping = format!(r#"{{"a":{},"b":{}}}"#, tensor("F32", "[4]", 0, 16), tensor("F32", "[4]", 8, 24));
    let gap = format!(r#"{{"a":{},"b":{}}}"#, tensor("F32", "[4]", 0, 16), tensor("F32", "[4]", 20, 36));
    let one = |dtype: &str, shape: &str, start, end| format!(r#"{{"weight":{}}}"#, tensor(dtype, shape, start, end));
    let twice = format!(r#"{{"a":{},"a":{}}}"#, tensor("F32", "[4]", 0, 16), tensor("F32", "[4]", 16, 32));
    for (what, bytes, expected) in [
        ("empty", vec![], "0 bytes are too few"),
        ("cut in the length", vec![1, 2, 3], "3 bytes are too few"),
        ("a length of 2⁶⁴ − 1", lies, "more than the"),
        ("a length beyond the end", beyond, "the header claims 1000 bytes, but only 2 follow"),
        ("no JSON", file("{", 0), "the header is not valid"),
        ("not UTF-8", [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat(), "header"),
        ("overlapping", file(&overlapping, 24), "`b`: its data starts at 8, inside the tensor before it"),
        ("a gap", file(&gap, 36), "`b`: 4 bytes before it belong to no tensor"),
        ("cut off", file(&one("F32", "[4]", 0, 16), 10), "its data ends at 16, but the file holds 10 bytes"),
        ("too long", file(&one("F32", "[4]", 0, 16), 20), "4 bytes of data follow the last tensor"),
        ("backwards", file(&one("F32", "[4]", 16, 0), 16), "ends at 0, before it starts at 16"),
        ("another size", file(&one("F32", "[5]", 0, 16), 16), "shape [5] of F32 does not take the 16 bytes"),
        ("overflow", file(&one("F32", "[4294967296,4294967296]", 0, 16), 16), "does not take the 16 bytes"),
        ("no such type", file(&one("F31", "[4]", 0, 16), 16), "`F31` is no type of the format"),
        ("twice", file(&twice, 32), "16 bytes before it belong to no tensor"),
        ("not a tensor", file(r#"{"weight":7}"#, 0), "`weight` is not a tensor"),
    ] {
        let found = error(&bytes);
        assert!(found.contains(expected), "{what}: {found}");
    }
}

#[test]
fn a_billion_tensors_take_no_memory() {
    // The header says that it has room for them; the file ends at once.
    let mut bytes = 60_000_000_000u64.to_le_bytes().to_vec();
    bytes.extend(br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"#);
    assert!(error(&bytes).contains("the header claims 60000000000 bytes"));
    // A tensor of 10⁹ · 10⁹ values, and 10⁹ tensors' worth of offsets.
    let header = format!(r#"{{"a":{}}}"#, tensor("F32", "[1000000000,1000000000]", 0, 4_000_000_000_000_000_000));
    assert!(error(&file(&header, 8)).contains("does not take the 4000000000000000000 bytes"));
    // As many empty tensors as a header that is read can name.
    let before = peak();
    let entries: Vec<String> = (0..250_000).map(|i| format!(r#""{i}":{}"#, tensor("F32", "[0]", 0, 0))).collect();
    let header = format!("{{{}}}", entries.join(","));
    assert!(header.len() < 16 << 20);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors"), file(&header, 0)).unwrap();
    assert_eq!(Checkpoint::open(dir.path()).unwrap().names().len(), 250_000);
    assert!(peak().saturating_sub(before) < 1 << 30, "{} bytes for a header of {}", peak() - before, header.len());
}

/// Most memory so far, in bytes; 0 where the system does not say.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// A copy of the llama fixture whose weights are changed.
fn loaded(change: impl FnOnce(&Path)) -> ModelError {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(llama().join(name), dir.path().join(name)).unwrap();
    }
    change(dir.path());
    CausalLm::from_dir(dir.path(), None, &device::cpu()).unwrap_err()
}

#[test]
fn a_type_that_is_no_float_names_the_tensor() {
    let error = loaded(|dir| {
        let path = dir.join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let (length, rest) = bytes.split_first_chunk().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header = String::from_utf8(header.to_vec()).unwrap().replace("\"F32\"", "\"I32\"");
        std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()).unwrap();
    });
    assert!(matches!(&error, ModelError::Dtype { found, .. } if found == "I32"), "{error}");
    assert!(error.to_string().contains("embed_tokens.weight"), "{error}");
}

/// Writes these bytes over the first value of a tensor.
fn overwrite(path: &Path, name: &str, value: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let start = {
        let (header, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        8 + header + metadata.info(name).unwrap().data_offsets.0
    };
    bytes[start..start + value.len()].copy_from_slice(value);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_value_that_is_not_finite_names_the_tensor() {
    for (value, words) in [(f32::NAN, "is NaN"), (f32::INFINITY, "is inf"), (f32::NEG_INFINITY, "is -inf")] {
        let name = "model.layers.1.mlp.up_proj.weight";
        let error = loaded(|dir| overwrite(&dir.join("model.safetensors"), name, &value.to_le_bytes()));
        let found = error.to_string();
        assert!(found.contains(&format!("tensor `{name}`: the value at [0, 0] {words} as f32")), "{found}");
        assert!(error.hint().is_some());
    }
    // A number that only the narrower type cannot hold.
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(llama().join(name), dir.path().join(name)).unwrap();
    }
    overwrite(&dir.path().join("model.safetensors"), "model.norm.weight", &1e6f32.to_le_bytes());
    let load = |storage| CausalLm::from_dir(dir.path(), Some(storage), &device::cpu());
    load(Storage::Bf16).unwrap();
    let error = load(Storage::F16).unwrap_err();
    assert!(error.to_string().contains("`model.norm.weight`: the value at [0] is inf as f16"), "{error}");
    assert!(error.hint().unwrap().contains("65504"));
}

#[test]
fn a_tied_model_has_no_other_head() {
    let tied = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/families/llama3-rope-tied");
    let with_head = |change: &dyn Fn(&mut Vec<u8>)| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(tied.join("config.json"), dir.path().join("config.json")).unwrap();
        let bytes = std::fs::read(tied.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let table = file.tensor("model.embed_tokens.weight").unwrap();
        let mut head = table.data().to_vec();
        change(&mut head);
        let head = safetensors::tensor::TensorView::new(table.dtype(), table.shape().to_vec(), &head).unwrap();
        let tensors = file.tensors().into_iter().filter(|(name, _)| name != "lm_head.weight");
        let tensors = tensors.chain([("lm_head.weight".to_string(), head)]);
        safetensors::serialize_to_file(tensors, None, &dir.path().join("model.safetensors")).unwrap();
        CausalLm::from_dir(dir.path(), None, &device::cpu())
    };
    assert!(with_head(&|_| ()).is_ok(), "the same table twice");
    let error = with_head(&|head| head[0] ^= 1).unwrap_err();
    assert!(matches!(error, ModelError::TiedHead { .. }), "{error}");
    assert!(error.to_string().contains("`lm_head.weight` differs from `model.embed_tokens.weight`"), "{error}");
    assert!(error.hint().unwrap().contains("tie_word_embeddings"));
}

#[test]
fn a_pointer_of_git_is_not_the_file() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 7\n";
    let error = loaded(|dir| std::fs::write(dir.join("model.safetensors"), pointer).unwrap());
    assert!(error.to_string().ends_with("model.safetensors is a Git LFS pointer, not the file itself"), "{error}");
    assert!(error.hint().unwrap().contains("git lfs pull"));
}

#[test]
fn an_index_reaches_no_other_directory() {
    for name in ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "..\\model.safetensors", "C:x", ".."] {
        let error = loaded(|dir| {
            std::fs::rename(dir.join("model.safetensors"), dir.join("other.safetensors")).unwrap();
            let index = serde_json::json!({ "weight_map": { "model.norm.weight": name } });
            std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
        });
        let found = error.to_string();
        assert!(found.contains("not a file beside the index") && found.contains(&format!("`{name}`")), "{found}");
    }
}

#[test]
fn damaged_seeds_of_the_fuzzer_end_in_a_header_or_an_error() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/safetensors");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let (mut read, mut refused) = (0, 0);
    for seed in std::fs::read_dir(seeds).unwrap() {
        let bytes = std::fs::read(seed.unwrap().path()).unwrap();
        // Each byte in turn becomes another, and the file ends there.
        let damaged = (0..bytes.len()).flat_map(|at| {
            let changed = |to: u8| [&bytes[..at], &[to], &bytes[at + 1..]].concat();
            [changed(0), changed(0xff), changed(bytes[at] ^ 1), changed(b'9'), bytes[..at].to_vec()]
        });
        for bytes in std::iter::once(bytes.clone()).chain(damaged) {
            std::fs::write(&path, &bytes).unwrap();
            match Checkpoint::open_file(&path) {
                Ok(_) => read += 1,
                Err(ModelError::Safetensors { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(read > 10 && refused > 1000, "{read} {refused}");
}
