//! Written models read back: Hugging Face directories, and GGUF through a reader of this test's own.
#![allow(clippy::unwrap_used, missing_docs)]

use half::f16;
use serde_json::Value;
use spo_model::export::{Gguf, GgufType, ModelFiles, SHARD_BYTES, save, save_gguf};
use spo_model::load::Storage;
use spo_model::spec::QkNorm;
use spo_model::{CausalLm, device, parameters};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A model of each family, with its directory.
fn models() -> Vec<PathBuf> {
    let mut all = vec![root().join("spo-cli/assets/stories260K")];
    all.extend(
        ["llama-tiny-policy", "qwen3-tiny-policy", "llama3rope-tiny"]
            .map(|name| root().join("fixtures/trl").join(name)),
    );
    all.extend(["mistral-window", "qwen2", "llama3-rope-tied"].map(|name| root().join("fixtures/families").join(name)));
    all
}

fn load(dir: &Path) -> CausalLm {
    CausalLm::from_dir(dir, None, &device::cpu()).unwrap()
}

fn hash(model: &CausalLm) -> String {
    parameters::hash(model, |_| true)
}

/// Name, shape and bytes of every tensor of a directory's safetensors.
fn tensors(dir: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
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

#[test]
fn a_round_trip_keeps_every_bit() {
    for dir in models() {
        let (model, files) = (load(&dir), ModelFiles::from_dir(&dir).unwrap());
        for shard_bytes in [SHARD_BYTES, 40_000, 1] {
            let out = tempfile::tempdir().unwrap();
            save(&model, &files, out.path(), shard_bytes).unwrap();
            let (mut before, after) = (tensors(&dir), tensors(out.path()));
            before.retain(|name, _| after.contains_key(name) || !name.ends_with("lm_head.weight"));
            assert_eq!(before, after, "{}", dir.display());
            let index = out.path().join("model.safetensors.index.json");
            assert_eq!(index.exists(), shard_bytes != SHARD_BYTES);
            assert_eq!(hash(&model), hash(&load(out.path())));
            for (name, bytes) in files.files.iter().filter(|(name, _)| name != "config.json") {
                assert_eq!(*bytes, std::fs::read(out.path().join(name)).unwrap(), "{name}");
            }
        }
    }
}

#[test]
fn another_type_is_rounded_once() {
    let dir = root().join("spo-cli/assets/stories260K");
    let (model, files) = (load(&dir), ModelFiles::from_dir(&dir).unwrap());
    for storage in [Storage::Bf16, Storage::F16] {
        let out = tempfile::tempdir().unwrap();
        save(&model.clone().stored_as(storage), &files, out.path(), SHARD_BYTES).unwrap();
        let rounded = CausalLm::from_dir(&dir, Some(storage), &device::cpu()).unwrap();
        assert_eq!(hash(&load(out.path())), hash(&rounded));
        let config: Value = serde_json::from_slice(&std::fs::read(out.path().join("config.json")).unwrap()).unwrap();
        let key = if config.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
        assert_eq!(config[key], if storage == Storage::Bf16 { "bfloat16" } else { "float16" });
    }
}

/// A reader of GGUF that shares nothing with the writer.
struct Reader {
    bytes: Vec<u8>,
    at: usize,
}

struct File {
    metadata: BTreeMap<String, Value>,
    /// Shape (slowest dimension first), type and bytes from its offset on.
    tensors: BTreeMap<String, (Vec<usize>, u32, Vec<u8>)>,
}

impl Reader {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let bytes = self.bytes[self.at..self.at + N].try_into().unwrap();
        self.at += N;
        bytes
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> usize {
        u64::from_le_bytes(self.take()) as usize
    }

    fn string(&mut self) -> String {
        let length = self.u64();
        let text = String::from_utf8(self.bytes[self.at..self.at + length].to_vec()).unwrap();
        self.at += length;
        text
    }

    fn value(&mut self, kind: u32) -> Value {
        match kind {
            4 => self.u32().into(),
            5 => i32::from_le_bytes(self.take()).into(),
            6 => f64::from(f32::from_le_bytes(self.take())).into(),
            7 => (self.take::<1>()[0] != 0).into(),
            8 => self.string().into(),
            9 => {
                let (kind, length) = (self.u32(), self.u64());
                (0..length).map(|_| self.value(kind)).collect()
            }
            10 => self.u64().into(),
            other => panic!("kind {other}"),
        }
    }

    fn file(path: &Path) -> File {
        let mut reader = Self { bytes: std::fs::read(path).unwrap(), at: 0 };
        assert_eq!(&reader.take::<4>(), b"GGUF");
        assert_eq!(reader.u32(), 3);
        let (tensors, pairs) = (reader.u64(), reader.u64());
        let mut metadata = BTreeMap::new();
        for _ in 0..pairs {
            let (key, kind) = (reader.string(), reader.u32());
            let value = reader.value(kind);
            assert!(metadata.insert(key.clone(), value).is_none(), "{key} twice");
        }
        let mut infos = vec![];
        for _ in 0..tensors {
            let (name, dimensions) = (reader.string(), reader.u32());
            let mut shape: Vec<usize> = (0..dimensions).map(|_| reader.u64()).collect();
            shape.reverse();
            infos.push((name, shape, reader.u32(), reader.u64()));
        }
        let data = reader.at.next_multiple_of(32);
        let tensors = infos.into_iter().map(|(name, shape, kind, offset)| {
            assert_eq!(offset % 32, 0, "{name}");
            (name, (shape, kind, reader.bytes[data + offset..].to_vec()))
        });
        File { metadata, tensors: tensors.collect() }
    }
}

impl File {
    fn values(&self, name: &str) -> Vec<f32> {
        let (shape, kind, bytes) = &self.tensors[name];
        let count: usize = shape.iter().product();
        match kind {
            0 => (0..count).map(|i| f32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap())).collect(),
            1 => (0..count).map(|i| f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32()).collect(),
            8 => {
                let value = |i: usize| {
                    let block = &bytes[i / 32 * 34..];
                    f16::from_le_bytes([block[0], block[1]]).to_f32() * f32::from(block[2 + i % 32] as i8)
                };
                (0..count).map(value).collect()
            }
            other => panic!("type {other}"),
        }
    }
}

fn exported(dir: &Path, dtype: GgufType) -> (CausalLm, File, tempfile::TempDir) {
    let (model, out) = (load(dir), tempfile::tempdir().unwrap());
    let path = out.path().join("model.gguf");
    save_gguf(&model, &ModelFiles::from_dir(dir).unwrap(), "a model", dtype, &path).unwrap();
    (model, Reader::file(&path), out)
}

fn numbers(values: &[u8]) -> Vec<f32> {
    values.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn gguf_holds_the_weights_under_its_own_names() {
    for dir in models().iter().filter(|dir| dir.join("tokenizer.json").exists()) {
        let what = dir.display();
        let original = tensors(dir);
        let (model, file, _out) = exported(dir, GgufType::F32);
        let spec = model.spec();
        let permuted = spec.family == "llama" || spec.family == "mistral";
        let source = |name: &str| numbers(&original[name].1);
        for (ours, theirs, heads) in [
            ("model.embed_tokens.weight", "token_embd.weight", 0),
            ("model.norm.weight", "output_norm.weight", 0),
            ("model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight", 0),
            ("model.layers.1.post_attention_layernorm.weight", "blk.1.ffn_norm.weight", 0),
            ("model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight", 0),
            ("model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight", 0),
            ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight", 0),
            ("model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", spec.heads),
            ("model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight", spec.kv_heads),
        ] {
            let (expected, found) = (source(ours), file.values(theirs));
            assert_eq!(file.tensors[theirs].0, original[ours].0, "{what} {theirs}");
            if heads == 0 || !permuted {
                assert_eq!(found, expected, "{what} {theirs}");
                continue;
            }
            // A channel and the one half a head later become neighbours.
            let (dim, width) = (spec.head_dim, spec.hidden_size);
            for head in 0..heads {
                for pair in 0..dim / 2 {
                    for half in 0..2 {
                        let ours = (head * dim + half * dim / 2 + pair) * width;
                        let theirs = (head * dim + 2 * pair + half) * width;
                        assert_eq!(found[theirs..theirs + width], expected[ours..ours + width], "{what} head {head}");
                    }
                }
            }
        }
        assert_eq!(file.tensors.contains_key("output.weight"), !spec.tied);
        assert_eq!(file.tensors.contains_key("blk.0.attn_q_norm.weight"), spec.qk_norm == QkNorm::PerHead);
        assert_eq!(file.tensors.contains_key("blk.0.attn_q.bias"), spec.qkv_bias);
    }
}

#[test]
fn gguf_keys_say_what_the_model_is() {
    let (model, file, _out) = exported(&root().join("spo-cli/assets/stories260K"), GgufType::F16);
    let meta = |key: &str| file.metadata[key].clone();
    assert_eq!(meta("general.architecture"), "llama");
    assert_eq!(meta("llama.block_count"), model.spec().layers.len());
    assert_eq!(meta("llama.attention.head_count_kv"), model.spec().kv_heads);
    assert_eq!(meta("llama.vocab_size"), 512);
    assert_eq!(meta("general.file_type"), 1);
    assert_eq!(meta("tokenizer.ggml.model"), "llama");
    assert_eq!((meta("tokenizer.ggml.bos_token_id"), meta("tokenizer.ggml.eos_token_id")), (1.into(), 2.into()));
    assert_eq!(
        (meta("tokenizer.ggml.add_bos_token"), meta("tokenizer.ggml.add_space_prefix")),
        (true.into(), true.into())
    );
    let (tokens, kinds, scores) =
        (meta("tokenizer.ggml.tokens"), meta("tokenizer.ggml.token_type"), meta("tokenizer.ggml.scores"));
    assert_eq!((&tokens[0], &kinds[0]), (&"<unk>".into(), &2.into()));
    assert_eq!((&tokens[1], &kinds[1]), (&"<s>".into(), &3.into()));
    let byte = tokens.as_array().unwrap().iter().position(|token| token == "<0x0A>").unwrap();
    assert_eq!(kinds[byte], 6);
    // Merged first, so joined first.
    let score = |token: &str| {
        let index = tokens.as_array().unwrap().iter().position(|found| found == token).unwrap();
        scores[index].as_f64().unwrap()
    };
    assert!(score("▁t") > score("he") && score("he") < 0.0);

    let (_, file, _out) = exported(&root().join("fixtures/trl/qwen3-tiny-policy"), GgufType::F16);
    assert_eq!(file.metadata["general.architecture"], "qwen3");
    assert_eq!(file.metadata["tokenizer.ggml.pre"], "qwen2");
    assert_eq!(file.metadata["tokenizer.ggml.merges"].as_array().unwrap().len(), 764);
    assert_eq!(file.metadata["qwen3.attention.key_length"], 16);
    let template = std::fs::read_to_string(root().join("fixtures/trl/qwen3-tiny-policy/chat_template.jinja")).unwrap();
    assert_eq!(file.metadata["tokenizer.chat_template"], template);
    let (_, file, _out) = exported(&root().join("fixtures/trl/llama-tiny-policy"), GgufType::F16);
    assert_eq!(file.metadata["tokenizer.ggml.pre"], "gpt-2");
}

#[test]
fn gguf_reads_back_as_the_model() {
    for (dtype, most) in [(GgufType::F32, 0.0), (GgufType::F16, 5e-4), (GgufType::Q8, 1e-2)] {
        for dir in models().iter().filter(|dir| dir.join("tokenizer.json").exists()) {
            let (model, _, out) = exported(dir, dtype);
            let read = Gguf::open(&out.path().join("model.gguf")).unwrap();
            let read = read.model(model.spec(), &device::cpu()).unwrap();
            let mut expected = BTreeMap::new();
            parameters::for_each(&model, "", |p| {
                expected.insert(p.path, p.value);
            });
            parameters::for_each(&read, "", |p| {
                let before = expected.remove(&p.path).unwrap();
                let scale = before.clone().abs().max().into_scalar::<f32>();
                let off = (before - p.value).abs().max().into_scalar::<f32>();
                assert!(off <= most * scale, "{dtype:?} {} {}: {off} of {scale}", dir.display(), p.path);
            });
            assert!(expected.is_empty());
        }
    }
}

/// Keys and tensors of the first block in files that llama.cpp's own converter wrote for Meta-Llama-3-8B-Instruct,
/// without the BOS, which the tiny model does not have.
const LLAMA_3: &[&str] = &[
    "blk.0.attn_k.weight",
    "blk.0.attn_norm.weight",
    "blk.0.attn_output.weight",
    "blk.0.attn_q.weight",
    "blk.0.attn_v.weight",
    "blk.0.ffn_down.weight",
    "blk.0.ffn_gate.weight",
    "blk.0.ffn_norm.weight",
    "blk.0.ffn_up.weight",
    "general.architecture",
    "general.file_type",
    "general.quantization_version",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "llama.rope.dimension_count",
    "llama.rope.freq_base",
    "llama.vocab_size",
    "output.weight",
    "output_norm.weight",
    "token_embd.weight",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.tokens",
];

/// The same for Mistral-7B-Instruct-v0.2.
const MISTRAL: &[&str] = &[
    "blk.0.attn_k.weight",
    "blk.0.attn_norm.weight",
    "blk.0.attn_output.weight",
    "blk.0.attn_q.weight",
    "blk.0.attn_v.weight",
    "blk.0.ffn_down.weight",
    "blk.0.ffn_gate.weight",
    "blk.0.ffn_norm.weight",
    "blk.0.ffn_up.weight",
    "general.architecture",
    "general.file_type",
    "general.quantization_version",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "llama.rope.dimension_count",
    "output.weight",
    "output_norm.weight",
    "token_embd.weight",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.model",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.unknown_token_id",
];

/// The same for Qwen2.5-0.5B-Instruct, without scores, which a BPE tokenizer does not have.
const QWEN_2: &[&str] = &[
    "blk.0.attn_k.bias",
    "blk.0.attn_k.weight",
    "blk.0.attn_norm.weight",
    "blk.0.attn_output.weight",
    "blk.0.attn_q.bias",
    "blk.0.attn_q.weight",
    "blk.0.attn_v.bias",
    "blk.0.attn_v.weight",
    "blk.0.ffn_down.weight",
    "blk.0.ffn_gate.weight",
    "blk.0.ffn_norm.weight",
    "blk.0.ffn_up.weight",
    "general.architecture",
    "general.file_type",
    "general.parameter_count",
    "general.quantization_version",
    "output_norm.weight",
    "qwen2.attention.head_count",
    "qwen2.attention.head_count_kv",
    "qwen2.attention.layer_norm_rms_epsilon",
    "qwen2.block_count",
    "qwen2.context_length",
    "qwen2.embedding_length",
    "qwen2.feed_forward_length",
    "qwen2.rope.freq_base",
    "token_embd.weight",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.model",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.tokens",
];

#[test]
fn gguf_has_the_keys_and_tensors_of_real_files() {
    let tokenizer = |dir: &str| ModelFiles::from_dir(&root().join(dir)).unwrap();
    let (llama, stories) = ("fixtures/trl/llama-tiny-policy", "spo-cli/assets/stories260K");
    let mut mistral = json(&root().join(stories).join("config.json"));
    mistral["model_type"] = "mistral".into();
    let mut qwen = json(&root().join("fixtures/families/qwen2/config.json"));
    qwen["vocab_size"] = 1024.into();
    qwen["tie_word_embeddings"] = true.into();
    for (config, files, expected) in [
        (json(&root().join(llama).join("config.json")), tokenizer(llama), LLAMA_3),
        (mistral, tokenizer(stories), MISTRAL),
        (qwen, tokenizer("fixtures/trl/qwen3-tiny-policy"), QWEN_2),
    ] {
        let spec = spo_model::ModelSpec::from_json(&config.to_string()).unwrap();
        let (model, out) = (CausalLm::random(&spec, 0, &device::cpu()), tempfile::tempdir().unwrap());
        let path = out.path().join("model.gguf");
        save_gguf(&model, &files, "a model", GgufType::F16, &path).unwrap();
        let file = Reader::file(&path);
        for key in expected.iter().filter(|key| !(**key == "output.weight" && spec.tied)) {
            assert!(file.metadata.contains_key(*key) || file.tensors.contains_key(*key), "{}: {key}", spec.family);
        }
        for tensor in file.tensors.keys().filter(|tensor| tensor.starts_with("blk.0.")) {
            assert!(expected.contains(&tensor.as_str()), "{}: {tensor} is not in the real file", spec.family);
        }
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn what_gguf_cannot_hold_is_refused() {
    let dir = root().join("fixtures/trl/llama-tiny-policy");
    let (model, out) = (load(&dir), tempfile::tempdir().unwrap());
    let path = out.path().join("model.gguf");
    let files = ModelFiles::from_dir(&dir).unwrap();
    let with = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut files = files.clone();
        let (_, bytes) = files.files.iter_mut().find(|(file, _)| file == name).unwrap();
        let mut json: Value = serde_json::from_slice(bytes).unwrap();
        change(&mut json);
        *bytes = json.to_string().into_bytes();
        save_gguf(&model, &files, "a model", GgufType::F16, &path).unwrap_err().to_string()
    };
    assert!(with("tokenizer.json", &|json| json["model"]["type"] = "Unigram".into()).contains("Unigram"));
    let error = with("tokenizer.json", &|json| {
        json["pre_tokenizer"] = serde_json::json!({"type": "Split", "pattern": {"Regex": "x+"}});
    });
    assert!(error.contains("\"x+\""), "{error}");
    let none = ModelFiles { files: vec![] };
    let error = save_gguf(&model, &none, "a model", GgufType::F16, &path).unwrap_err();
    assert!(error.to_string().contains("without tokenizer.json"), "{error}");
    let refused = |model: &CausalLm| save_gguf(model, &files, "a model", GgufType::F16, &path).unwrap_err().to_string();
    for family in ["gemma", "gemma2", "gemma3", "gpt2", "gpt-neox", "olmo2", "phi3", "smollm3"] {
        let model = load(&root().join("fixtures/families").join(family));
        let error = refused(&model);
        assert!(error.contains(&format!("the family {}", model.spec().family)), "{error}");
    }
    for (key, value, reason) in [
        ("rope_parameters", serde_json::json!({"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0}), "YaRN"),
        ("hidden_act", "gelu".into(), "Gelu"),
        (
            "rope_parameters",
            serde_json::json!({"rope_type": "default", "partial_rotary_factor": 0.5}),
            "8 of 16 channels",
        ),
    ] {
        let mut config = json(&dir.join("config.json"));
        config[key] = value;
        let spec = spo_model::ModelSpec::from_json(&config.to_string()).unwrap();
        let error = refused(&CausalLm::random(&spec, 0, &device::cpu()));
        assert!(error.contains(reason), "{key}: {error}");
    }
    assert!(!path.exists());
}
