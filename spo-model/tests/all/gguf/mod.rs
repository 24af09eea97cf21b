//! GGUF files, through a reader of this test's own; `tools/parity` runs them in llama.cpp.

mod again;

mod kept;
mod kinds;
mod malformed;
mod reader;
mod real_files;

use crate::common::{load, root, tensors, with_tokenizer};
use burn::tensor::Tensor;
use reader::{File, Reader};
use real_files::{LLAMA_3, MISTRAL, PHI_3, QWEN_2};
use serde_json::{Value, json};
use spo_model::export::{GgufType, ModelFiles, save_gguf};
use spo_model::load::{LoadOptions, Storage, load_gguf};
use spo_model::spec::{NormKind, QkNorm};
use spo_model::{CausalLm, ModelSpec, device, parameters};
use std::collections::BTreeMap;
use std::path::Path;

const FAMILIES: [&str; 25] = [
    "cohere2",
    "exaone4",
    "gemma",
    "gemma2",
    "gemma3",
    "glm4",
    "gpt-neox",
    "gpt2",
    "granite",
    "granitemoe",
    "hunyuan-dense",
    "llama",
    "llama3-rope-tied",
    "mistral-window",
    "mixtral",
    "olmo2",
    "olmo3",
    "olmoe",
    "phi3",
    "qwen2",
    "qwen2-moe",
    "qwen3",
    "qwen3-moe",
    "seed-oss",
    "smollm3",
];

/// The configuration of a fixture's family, for a tokenizer that is split as Llama's where `sentence_piece`, and
/// that tokenizer.
fn family(name: &str, sentence_piece: bool) -> (Value, ModelFiles) {
    let dir = if sentence_piece { "spo-cli/assets/stories260K" } else { "fixtures/trl/llama-tiny-policy" };
    let mut files = ModelFiles::from_dir(&root().join(dir)).unwrap();
    let mut config = json(&root().join("fixtures/families").join(name).join("config.json"));
    config["vocab_size"] = 1024.into();
    match name {
        // The blocks without a rotary embedding that all of the published models have.
        "smollm3" => {
            config["no_rope_layers"] = Value::Null;
            config["no_rope_layer_interval"] = 4.into();
        }
        // Windows, and a rotary embedding, where the published models have them.
        "exaone4" => (config["layer_types"], config["sliding_window"]) = (Value::Null, Value::Null),
        "cohere2" | "olmo3" => {
            config["layer_types"] = Value::Null;
            config["sliding_window_pattern"] = 4.into();
            config["num_hidden_layers"] = 5.into();
        }
        "gemma4" => config["vocab_size_per_layer_input"] = 1024.into(),
        "qwen3-moe" => config["mlp_only_layers"] = json!([]),
        "olmoe" => config["num_key_value_heads"] = config["num_attention_heads"].clone(),
        "phi3" => edit(&mut files, "tokenizer.json", |json| {
            let mut added: Vec<Value> = json["added_tokens"].as_array().unwrap().clone();
            let more = ["<unk>", "<s>", "<|endoftext|>"].iter().zip(1021..);
            added.extend(more.map(|(token, id)| {
                json!({"content": token, "id": id, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false})
            }));
            json["added_tokens"] = added.into();
        }),
        _ => {}
    }
    (config, files)
}

fn edit(files: &mut ModelFiles, name: &str, change: impl FnOnce(&mut Value)) {
    let (_, bytes) = files.files.iter_mut().find(|(file, _)| file == name).unwrap();
    let mut json: Value = serde_json::from_slice(bytes).unwrap();
    change(&mut json);
    *bytes = json.to_string().into_bytes();
}

fn random(config: &Value) -> CausalLm {
    CausalLm::random(&ModelSpec::from_json(&config.to_string()).unwrap(), 0, &device::cpu())
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
    for dir in &with_tokenizer() {
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

/// The model that a file of this type holds must differ by no more than `most` of each tensor's largest value.
fn reads_back(model: &CausalLm, files: &ModelFiles, dtype: GgufType, most: f32) {
    let (spec, out) = (model.spec(), tempfile::tempdir().unwrap());
    let path = out.path().join("model.gguf");
    save_gguf(model, files, "a model", dtype, &path).unwrap();
    let wide = LoadOptions { storage: Some(Storage::F32), blocks: None };
    let read = load_gguf(&path, spec, wide, &device::cpu()).unwrap();
    let mut expected = BTreeMap::new();
    parameters::for_each(model, "", |p| {
        expected.insert(p.path, p.value);
    });
    parameters::for_each(&read, "", |p| {
        let before = expected.remove(&p.path).unwrap();
        // Gemma's norms are stored around 1, where f32 is coarser.
        let around = if spec.norm == NormKind::RmsFromOne && p.path.ends_with("norm.weight") { 2e-7 } else { 0.0 };
        let scale = before.clone().abs().max().into_scalar::<f32>();
        let off = (before - p.value).abs().max().into_scalar::<f32>();
        assert!(off <= most * scale + around, "{dtype:?} {} {}: {off} of {scale}", spec.family, p.path);
    });
    assert!(expected.is_empty());
}

#[test]
fn gguf_reads_back_as_the_model() {
    for (dtype, most) in [(GgufType::F32, 0.0), (GgufType::F16, 5e-4), (GgufType::Q8, 1e-2)] {
        for dir in with_tokenizer() {
            reads_back(&load(&dir), &ModelFiles::from_dir(&dir).unwrap(), dtype, most);
        }
        for name in FAMILIES {
            let (config, files) = family(name, false);
            let mut index = 0.0;
            // Biases and norms too are to be told apart.
            let model = parameters::replace(random(&config), "", |parameter| {
                index += 0.1;
                let ramp = Tensor::arange(0..parameter.value.dims()[0] as i64, &parameter.value.device());
                parameter.value + (ramp.float() * 0.737 + index).sin() * 0.1
            });
            reads_back(&model, &files, dtype, most);
        }
    }
}

#[test]
fn gguf_orders_tensors_as_llama_cpp_reads_them() {
    let exported = |name: &str| {
        let (config, files) = family(name, true);
        let model = random(&config);
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("model.gguf");
        save_gguf(&model, &files, "a model", GgufType::F32, &path).unwrap();
        let mut ours = BTreeMap::new();
        parameters::for_each(&model, "", |p| {
            ours.insert(p.path, p.value.into_data().try_to_vec::<f32>().unwrap());
        });
        (model, ours, Reader::file(&path))
    };
    // Norms around 0 become norms around 1.
    let (_, ours, file) = exported("gemma2");
    for (path, name) in [
        ("layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"),
        ("layers.0.post_attention_layernorm.weight", "blk.0.post_attention_norm.weight"),
        ("layers.0.pre_feedforward_layernorm.weight", "blk.0.ffn_norm.weight"),
        ("layers.0.post_feedforward_layernorm.weight", "blk.0.post_ffw_norm.weight"),
        ("norm.weight", "output_norm.weight"),
    ] {
        let expected: Vec<f32> = ours[path].iter().map(|weight| weight + 1.0).collect();
        assert_eq!(file.values(name), expected, "{name}");
    }
    assert_eq!(file.metadata["gemma2.attention.sliding_window"], 8);
    assert_eq!(file.metadata["gemma2.final_logit_softcapping"], 30.0);
    // The query, key and value of each head become all queries, all keys and all values.
    let (model, ours, file) = exported("gpt-neox");
    let spec = model.spec();
    let row = spec.head_dim * spec.hidden_size;
    let (ours, theirs) = (&ours["layers.1.self_attn.qkv_proj.weight"], file.values("blk.1.attn_qkv.weight"));
    for part in 0..3 {
        for head in 0..spec.heads {
            let (from, to) = ((head * 3 + part) * row, (part * spec.heads + head) * row);
            assert_eq!(theirs[to..to + row], ours[from..from + row], "part {part} of head {head}");
        }
    }
    assert_eq!(file.metadata["gptneox.use_parallel_residual"], true);
    assert_eq!(file.metadata["gptneox.rope.dimension_count"], spec.ropes[0].dim);
}

/// A configuration of Phi 3 with LongRoPE.
fn longrope() -> Value {
    let (mut config, _) = family("phi3", true);
    config["max_position_embeddings"] = 131_072.into();
    config["rope_parameters"] = json!({"rope_type": "longrope", "rope_theta": 10_000.0,
        "short_factor": [1.0, 1.25, 1.5, 1.75], "long_factor": [1.0, 2.0, 4.0, 8.0]});
    config
}

/// Readers know the spaces around Phi 3's special tokens by the model's name alone.
#[test]
fn phi_3_is_named_where_its_tokens_are() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("model.gguf");
    let named = |config: &Value, files: &ModelFiles, name: &str| {
        save_gguf(&random(config), files, name, GgufType::F16, &path).unwrap();
        Reader::file(&path).metadata.get("general.name").cloned()
    };
    let ((phi, files), (llama, others)) = (family("phi3", true), family("llama", true));
    assert_eq!(named(&phi, &files, "kind"), Some("Phi-3 kind".into()));
    assert_eq!(named(&phi, &files, "Phi-3-kind"), Some("Phi-3-kind".into()));
    assert_eq!(named(&phi, &others, "phi3 with Phi 4's tokens"), None);
    assert_eq!(named(&llama, &others, "better than phi3"), None);
    assert_eq!(named(&llama, &others, "kind"), Some("kind".into()));
}

#[test]
fn longrope_is_exported_with_both_tables() {
    let (_, files) = family("phi3", true);
    let (model, out) = (random(&longrope()), tempfile::tempdir().unwrap());
    let path = out.path().join("model.gguf");
    save_gguf(&model, &files, "a model", GgufType::F16, &path).unwrap();
    let file = Reader::file(&path);
    assert_eq!(file.values("rope_factors_short.weight"), [1.0, 1.25, 1.5, 1.75]);
    assert_eq!(file.values("rope_factors_long.weight"), [1.0, 2.0, 4.0, 8.0]);
    assert_eq!(file.metadata["phi3.context_length"], 131_072);
    assert_eq!(file.metadata["phi3.rope.scaling.original_context_length"], 4096);
    // √(1 + ln 32 / ln 4096), which the real file of the 128k model has.
    let factor = file.metadata["phi3.rope.scaling.attn_factor"].as_f64().unwrap();
    assert!((factor - 1.190_238_1).abs() < 1e-6, "{factor}");
}

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
        (longrope(), family("phi3", true).1, PHI_3),
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
        edit(&mut files, name, change);
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
    let error = with("tokenizer.json", &|json| json["model"]["ignore_merges"] = true.into());
    assert!(error.contains("without merges of words"), "{error}");
    for (key, value, reason) in unknown_steps() {
        let error = with("tokenizer.json", &|json| json[key] = value.clone());
        assert!(error.contains(reason), "{key} {value}: {error}");
    }
    let error = with("tokenizer.json", &|json| json["model"]["end_of_word_suffix"] = "</w>".into());
    assert!(error.contains("end_of_word_suffix"), "{error}");
    for (name, key, value, reason) in refused() {
        let (mut config, files) = family(name, false);
        config[key] = value;
        let error = save_gguf(&random(&config), &files, "a model", GgufType::F16, &path).err().map(|e| e.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(reason)), "{name} {key}: {error:?}");
    }
    assert!(!path.exists());
}

/// What llama.cpp does not do to a text before the merges: key, value and what the error says.
fn unknown_steps() -> Vec<(&'static str, Value, &'static str)> {
    let byte_level =
        |space: bool| json!({"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": true});
    let sequence = |first: Value| json!({"type": "Sequence", "pretokenizers": [first, byte_level(false)]});
    let split =
        |behavior: &str| json!({"type": "Split", "pattern": {"Regex": "x+"}, "behavior": behavior, "invert": false});
    vec![
        ("normalizer", json!({"type": "Lowercase"}), "Lowercase"),
        ("normalizer", json!({"type": "Strip", "strip_left": true, "strip_right": true}), "Strip"),
        ("normalizer", json!({"type": "Replace", "pattern": {"String": "-"}, "content": "_"}), "Replace"),
        ("normalizer", json!({"type": "NFKC"}), "NFKC"),
        ("normalizer", json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "NFD"}]}), "NFD"),
        ("pre_tokenizer", byte_level(true), "add_prefix_space"),
        ("pre_tokenizer", sequence(json!({"type": "Digits", "individual_digits": false})), "Digits"),
        ("pre_tokenizer", sequence(split("Removed")), "Removed"),
        ("pre_tokenizer", sequence(split("Isolated")), "more than once"),
    ]
}

/// The tokenizer's settings as this program takes them: ends, BOS and every template.
#[test]
fn gguf_has_what_the_tokenizers_settings_mean() {
    let dir = root().join("fixtures/trl/llama-tiny-policy");
    let (model, out) = (load(&dir), tempfile::tempdir().unwrap());
    let path = out.path().join("model.gguf");
    let mut files = ModelFiles::from_dir(&dir).unwrap();
    let keys = |files: &ModelFiles| {
        save_gguf(&model, files, "a model", GgufType::F16, &path).unwrap();
        Reader::file(&path).metadata
    };
    edit(&mut files, "tokenizer_config.json", |config| {
        (config["eos_token"], config["bos_token"]) = ("<|endoftext|>".into(), "<|im_start|>".into());
        config["add_bos_token"] = true.into();
    });
    let found = keys(&files);
    let key = |name: &str| found[&format!("tokenizer.ggml.{name}")].clone();
    // The template ends a turn with another token than EOS.
    assert_eq!((key("eos_token_id"), key("eot_token_id"), key("bos_token_id")), (0.into(), 2.into(), 1.into()));
    assert_eq!((key("add_bos_token"), key("add_eos_token")), (true.into(), false.into()));

    files.files.retain(|(name, _)| name != "chat_template.jinja");
    edit(&mut files, "tokenizer_config.json", |config| {
        let named = |name: &str| json!({"name": name, "template": format!("{name} {{{{ messages }}}}")});
        config["chat_template"] = json!([named("default"), named("tool_use"), named("rag")]);
    });
    let found = keys(&files);
    assert_eq!(found["tokenizer.chat_template"], "default {{ messages }}");
    assert_eq!(found["tokenizer.chat_template.tool_use"], "tool_use {{ messages }}");
    assert_eq!(found["tokenizer.chat_templates"], json!(["rag", "tool_use"]));
}

/// Models that llama.cpp would compute otherwise: family, key, value and what the error says.
fn refused() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let llama_3 = json!({"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
    let longrope = json!({"rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, 1]});
    let two_scalings = json!({"full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}});
    let others = ["apertus", "gemma4", "ministral3", "gpt-oss"];
    let mut all = vec![
        ("llama", "rope_parameters", json!({"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0}), "YaRN"),
        ("llama", "hidden_act", "gelu".into(), "Gelu"),
        ("llama", "rope_parameters", json!({"rope_type": "default", "partial_rotary_factor": 0.5}), "4 of 8 channels"),
        ("llama", "rope_parameters", longrope, "longrope for llama"),
        ("qwen3", "rope_parameters", llama_3, "Llama 3's rotary scaling for qwen3"),
        ("qwen3", "attention_bias", true.into(), "biases"),
        ("qwen2", "head_dim", 16.into(), "channels of all heads"),
        ("gpt2", "scale_attn_by_inverse_layer_idx", true.into(), "scores scaled by"),
        ("gpt2", "activation_function", "gelu".into(), "Gelu"),
        ("gemma2", "query_pre_attn_scalar", 100.into(), "scores scaled by"),
        ("gemma2", "attn_logit_softcapping", Value::Null, "without a bound"),
        ("gemma3", "final_logit_softcapping", 30.into(), "a bound of"),
        (
            "gemma3",
            "layer_types",
            json!(["full_attention", "sliding_attention", "sliding_attention"]),
            "windows in other",
        ),
        ("gemma3", "rope_parameters", two_scalings, "blocks with a window"),
        ("gemma", "tie_word_embeddings", false.into(), "a head of its own"),
        ("olmo2", "tie_word_embeddings", true.into(), "a tied head"),
        ("smollm3", "no_rope_layers", json!([1, 0, 1]), "rotary embedding in other blocks"),
        ("cohere2", "tie_word_embeddings", false.into(), "a head of its own"),
        ("exaone4", "sliding_window", 8.into(), "windows in a model of 3 blocks"),
        ("olmoe", "norm_topk_prob", true.into(), "that sum to 1"),
        ("olmoe", "num_key_value_heads", 2.into(), "2 heads of keys"),
        ("qwen3-moe", "mlp_only_layers", json!([0]), "blocks without experts"),
        ("seed-oss", "attention_out_bias", true.into(), "biases"),
    ];
    all.extend(others.map(|name| (name, "use_cache", true.into(), "of the family ")));
    all
}
