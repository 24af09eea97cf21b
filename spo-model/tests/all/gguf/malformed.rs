//! Damaged and hostile files: an error each that names the file and the place, and no memory beyond the file's size.

use crate::common::{load, root};
use spo_data::Tokenizer;
use spo_data::gguf::Gguf;
use spo_model::export::{GgufType, ModelFiles, save_gguf};
use spo_model::load::LoadOptions;
use spo_model::{CausalLm, device};
use std::path::{Path, PathBuf};

/// The bytes of a file, written piece by piece.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    /// A file of this version with so many tensors and keys to come.
    fn start(version: u32, tensors: u64, keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(keys)
    }

    fn u32(self, n: u32) -> Self {
        self.raw(&n.to_le_bytes())
    }

    fn u64(self, n: u64) -> Self {
        self.raw(&n.to_le_bytes())
    }

    fn text(self, text: &str) -> Self {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn whole(self, key: &str, n: u32) -> Self {
        self.text(key).u32(4).u32(n)
    }

    fn string(self, key: &str, text: &str) -> Self {
        self.text(key).u32(8).text(text)
    }

    fn tensor(self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Self {
        let shape = shape.iter().fold(self.text(name).u32(shape.len() as u32), |bytes, size| bytes.u64(*size));
        shape.u32(kind).u64(offset)
    }
}

/// The error and its hint.
fn error_of(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let error = CausalLm::open(&path, LoadOptions::default(), &device::cpu()).unwrap_err();
    assert!(error.to_string().contains("model.gguf"), "{error}");
    format!("{error}; hint: {}", error.hint().unwrap_or_default())
}

#[test]
fn damaged_headers_are_told_apart() {
    let start = |tensors, keys| Bytes::start(3, tensors, keys);
    let list = start(0, 1).text("a").u32(9);
    for (what, bytes, expected) in [
        ("empty", Bytes::default(), "byte 0: 4 bytes expected, but the file ends at 0"),
        ("another file", Bytes(b"PK\x03\x04".to_vec()), "byte 0: found \"PK\\u{3}\\u{4}\", expected GGUF"),
        ("version 1", Bytes::start(1, 0, 0), "version 1, expected 2 or 3"),
        ("version 4", Bytes::start(4, 0, 0), "version 4, expected 2 or 3"),
        ("big-endian", Bytes::start(3u32.swap_bytes(), 0, 0), "big-endian"),
        ("2⁶⁴ − 1 tensors", start(u64::MAX, 0), "byte 8: 18446744073709551615 tensors do not fit into the 8 bytes"),
        ("2⁶³ keys", start(0, 1 << 63), "byte 16: 9223372036854775808 keys do not fit into the 0 bytes"),
        ("a long key", start(0, 1).u64(1 << 40).raw(&[0; 8]), "byte 24: 1099511627776 bytes of text do not fit"),
        ("not UTF-8", start(0, 1).u64(2).raw(&[0xff; 16]), "byte 32: the text is not UTF-8"),
        ("no such type", start(0, 1).text("a").u32(13).u32(0), "key `a`: a value of type 13"),
        ("a long list", list.clone().u32(4).u64(1 << 62), "key `a`: 4611686018427387904 values do not fit"),
        ("lists in a list", list.clone().u32(9).u64(1).u32(4).u64(0), "key `a`: a list of values of type 9"),
        ("texts cut off", list.u32(8).u64(1).u64(9), "key `a`: 9 bytes of text do not fit into the 0 bytes"),
        ("a switch of 2", start(0, 1).text("a").u32(7).raw(&[2]), "found 2, expected 0 or 1"),
        ("twice", start(0, 2).whole("a", 1).whole("a", 1), "key `a` is there twice"),
        ("alignment 3", start(0, 1).whole("general.alignment", 3), "key `general.alignment`: found"),
        ("alignment 0", start(0, 1).whole("general.alignment", 0), "expected a power of two"),
        ("5 dimensions", start(1, 0).tensor("x", &[1; 5], 0, 0), "tensor `x`: byte 33: 5 dimensions"),
        ("2¹²⁸ values", start(1, 0).tensor("x", &[1 << 63, 1 << 63], 0, 0), "more values than can be counted"),
        ("a crooked offset", start(1, 0).tensor("x", &[1], 0, 3), "begins at 3, expected a multiple of 32"),
    ] {
        let error = error_of(&bytes.0);
        assert!(error.contains(expected), "{what}: {error}");
        let hint = if bytes.0.starts_with(b"GGUF") { "copy or download it again" } else { "name a GGUF file" };
        assert!(error.contains(hint), "{what}: {error}");
    }
}

/// What the metadata must say before a model is looked for.
#[test]
fn unknown_models_are_refused_by_name() {
    let named = |name: &str, keys: u64| Bytes::start(3, 1, keys).string("general.architecture", name);
    let embedding = |bytes: Bytes| bytes.tensor("token_embd.weight", &[8, 16], 0, 0).0;
    for (what, bytes, expected) in [
        (
            "no architecture",
            embedding(Bytes::start(3, 1, 0)),
            "`general.architecture`: found nothing, expected one of llama,",
        ),
        ("another one", embedding(named("mamba", 1)), "found \"mamba\", expected one of llama, qwen2"),
        ("experts", embedding(named("qwen2", 2).whole("qwen2.expert_count", 8)), "key `qwen2.expert_count`: found 8"),
        ("a factor", embedding(named("llama", 2).whole("llama.logit_scale", 8)), "key `llama.logit_scale`: found 8"),
        ("a key nobody knows", embedding(named("llama", 2).whole("llama.oddity", 8)), "key `llama.oddity`: found 8"),
        (
            "no shape",
            embedding(named("llama", 2).whole("llama.block_count", 1)),
            "`llama.context_length`: found nothing",
        ),
        (
            "an adapter",
            embedding(named("llama", 2).string("general.type", "adapter")),
            "found \"adapter\", expected model",
        ),
    ] {
        let error = error_of(&bytes);
        assert!(error.contains(expected), "{what}: {error}");
    }
    let shape = ["context_length", "embedding_length", "feed_forward_length", "attention.head_count"];
    let shape = |bytes: Bytes| {
        shape.iter().fold(bytes, |bytes, key| {
            bytes.whole(&format!("llama.{key}"), if key.ends_with("head_count") { 2 } else { 8 })
        })
    };
    let blocks = shape(named("llama", 6)).whole("llama.block_count", u32::MAX);
    let error = error_of(&embedding(blocks));
    assert!(error.contains("`llama.block_count`: found 4294967295, expected at most the 1 tensors"), "{error}");
    let without_data = shape(named("llama", 6)).whole("llama.block_count", 1);
    let error = error_of(&embedding(without_data));
    assert!(error.contains("tensor `token_embd.weight`: its 512 bytes from"), "{error}");
}

fn exported(out: &Path) -> (PathBuf, Vec<u8>) {
    let dir = root().join("spo-cli/assets/stories260K");
    let path = out.join("model.gguf");
    save_gguf(&load(&dir), &ModelFiles::from_dir(&dir).unwrap(), "a model", GgufType::Q8, &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

/// Rows of token ids need no tokenizer; the id that ends an answer is known all the same.
#[test]
fn a_file_without_a_tokenizer_scores_ids() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("model.gguf");
    let eos = |keys| Bytes::start(3, 0, keys).whole("tokenizer.ggml.eos_token_id", 7);
    for (bytes, found) in [(eos(1), "nothing"), (eos(2).string("tokenizer.ggml.model", "no_vocab"), "\"no_vocab\"")] {
        std::fs::write(&path, bytes.raw(&[0; 32]).0).unwrap();
        let error = Tokenizer::from_path(&path).unwrap_err().to_string();
        let expected =
            format!("model.gguf: no tokenizer in the file: key `tokenizer.ggml.model`: found {found}, expected gpt2");
        assert!(error.contains(&expected), "{error}");
        let tokenizer = Tokenizer::of_model(&path).unwrap();
        assert_eq!((tokenizer.terminators(), tokenizer.vocabulary_size()), (&[7][..], 0));
    }
}

#[test]
fn a_pointer_of_git_lfs_says_how_to_fetch_the_file() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("model.gguf");
    std::fs::write(&path, b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 7\n").unwrap();
    let error = CausalLm::open(&path, LoadOptions::default(), &device::cpu()).unwrap_err();
    assert!(error.hint().unwrap().contains("git lfs pull"), "{error}");
}

/// Changes bytes of the file where they follow this text.
fn after(bytes: &[u8], text: &str, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = bytes.windows(text.len()).position(|part| part == text.as_bytes()).unwrap() + text.len();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

#[test]
fn whole_models_with_one_fault_are_named() {
    let out = tempfile::tempdir().unwrap();
    let (_, bytes) = exported(out.path());
    let kind =
        |code: u32| [&2u32.to_le_bytes()[..], &64u64.to_le_bytes(), &64u64.to_le_bytes(), &code.to_le_bytes()].concat();
    let renamed = |from: &str, to: &str| {
        let mut bytes = bytes.clone();
        let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    for (what, bytes, expected) in [
        ("cut off", bytes[..bytes.len() - 64].to_vec(), "lie outside the"),
        (
            "IQ4_XS",
            after(&bytes, "blk.0.attn_q.weight", &kind(23)),
            "tensor `blk.0.attn_q.weight`: stored as IQ4_XS, expected one of F32",
        ),
        (
            "blocks of 256",
            after(&bytes, "blk.0.attn_q.weight", &kind(12)),
            "rows of 64 values do not fill the blocks of 256 that Q4_K has",
        ),
        ("another name", renamed("blk.0.attn_q.weight", "blk.0.attn_x.weight"), "missing: blk.0.attn_q.weight"),
        ("another shape", after(&bytes, "llama.feed_forward_length", &[4, 0, 0, 0, 200, 0, 0, 0]), "found shape"),
        (
            "another rope",
            after(&bytes, "llama.rope.dimension_count", &[4, 0, 0, 0, 7, 0, 0, 0]),
            "an even number of at most 8",
        ),
    ] {
        let error = error_of(&bytes);
        assert!(error.contains(expected), "{what}: {error}");
        let hint = match what {
            "cut off" => "copy or download it again",
            "IQ4_XS" => "llama-quantize",
            "another name" | "another shape" => "do not belong together",
            _ => "",
        };
        assert!(error.contains(hint), "{what}: {error}");
    }
}

/// A scale that is no number makes its block's values so: named by tensor and place in the file, where the rows of a head
/// stand in another order than in the model.
#[test]
fn a_value_that_is_not_finite_is_named() {
    let out = tempfile::tempdir().unwrap();
    let (path, mut bytes) = exported(out.path());
    let (row, name) = (64 / 32 * 34, "blk.0.attn_q.weight");
    let start = Gguf::open(&path).unwrap().bytes(name, 64 * row).unwrap().start;
    bytes[start + row..start + row + 2].copy_from_slice(&half::f16::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = CausalLm::open(&path, LoadOptions::default(), &device::cpu()).unwrap_err();
    assert!(
        error.to_string().contains(&format!("model.gguf: tensor `{name}`: the value at [1, 0] is NaN as f32")),
        "{error}"
    );
    assert!(error.hint().is_some());
}

#[test]
fn tokenizers_that_are_not_known_are_refused_by_name() {
    let out = tempfile::tempdir().unwrap();
    let (path, bytes) = exported(out.path());
    let error = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = Tokenizer::from_path(&path).unwrap_err().to_string();
        assert!(error.contains("model.gguf"), "{error}");
        error
    };
    let kind =
        after(&bytes, "tokenizer.ggml.model", &[&8u32.to_le_bytes()[..], &5u64.to_le_bytes(), b"plamo"].concat());
    assert!(error(&kind).contains("`tokenizer.ggml.model`: found \"plamo\", expected gpt2"));
    let far = after(&bytes, "tokenizer.ggml.bos_token_id", &[4, 0, 0, 0, 255, 255, 0, 0]);
    assert!(error(&far).contains("`tokenizer.ggml.bos_token_id`: found 65535, expected one of 512 tokens"));
}

#[test]
fn split_files_are_read_by_their_first_part() {
    let out = tempfile::tempdir().unwrap();
    let path = |part: u32| out.path().join(format!("model-{part:05}-of-00002.gguf"));
    let part = |number: u16, tensor: &str| {
        let bytes = Bytes::start(3, 1, 3).text("split.no").u32(2).raw(&number.to_le_bytes());
        let bytes = bytes.text("split.count").u32(2).raw(&2u16.to_le_bytes());
        bytes.text("split.tensors.count").u32(5).u32(2).tensor(tensor, &[1], 0, 0).raw(&[0; 64]).0
    };
    let open = |part: u32| Gguf::open(&path(part)).map_err(|error| error.to_string());
    std::fs::write(path(1), part(0, "a")).unwrap();
    let error = open(1).unwrap_err();
    assert!(error.contains("model-00002-of-00002.gguf: cannot be read"), "{error}");
    std::fs::write(path(2), part(1, "a")).unwrap();
    assert!(open(1).unwrap_err().contains("tensor `a`: is there twice"));
    std::fs::write(path(2), part(1, "b")).unwrap();
    let file = open(1).unwrap();
    assert_eq!(file.tensors().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(file.paths().count(), 2);
    assert_eq!(file.bytes("b", 4).unwrap().bytes, [0; 4]);
    let error = open(2).unwrap_err();
    assert!(error.contains("the first is to be named: …-00001-of-00002.gguf"), "{error}");
}

/// Any byte may be another, and the file may end anywhere.
#[test]
fn damage_anywhere_ends_in_a_model_or_an_error() {
    let out = tempfile::tempdir().unwrap();
    let (path, bytes) = exported(out.path());
    let header = bytes.windows(17).position(|part| part == b"token_embd.weight").unwrap() + 2048;
    let (mut failed, step) = (0, 61);
    for at in (0..header).step_by(step) {
        let mut damaged = bytes.clone();
        damaged[at] = damaged[at].wrapping_add(1 + (at % 251) as u8);
        std::fs::write(&path, damaged).unwrap();
        failed += usize::from(CausalLm::open(&path, LoadOptions::default(), &device::cpu()).is_err());
        std::fs::write(&path, &bytes[..at]).unwrap();
        let error = CausalLm::open(&path, LoadOptions::default(), &device::cpu()).unwrap_err();
        assert!(error.to_string().contains("model.gguf"), "{error}");
    }
    assert!(failed > 0);
}
