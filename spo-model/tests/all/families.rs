//! Every family: batching, packing, export back to the checkpoint's bits, and its forms of configuration.

use safetensors::SafeTensors;
use serde_json::{Value, json};
use spo_data::{Group, PackedBatch};
use spo_model::export::{ModelFiles, SHARD_BYTES, save};
use spo_model::family::FAMILIES;
use spo_model::generate::{Control, DecodeOptions, GenerateOptions, Generator, Sampling};
use spo_model::{CausalLm, ModelError, ModelSpec, device};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

fn families() -> Vec<(String, PathBuf)> {
    let dirs = std::fs::read_dir(fixtures().join("families")).unwrap().map(|entry| entry.unwrap().path());
    let mut dirs: Vec<_> = dirs.map(|dir| (dir.file_name().unwrap().to_str().unwrap().to_string(), dir)).collect();
    dirs.sort();
    for family in FAMILIES {
        let known = dirs.iter().any(|(_, dir)| ModelSpec::from_path(dir).unwrap().family == family.name);
        assert!(known, "no tiny {}", family.name);
    }
    dirs
}

fn load(dir: &Path) -> CausalLm {
    CausalLm::from_dir(dir, None, &device::cpu()).unwrap()
}

fn tokens(from: u32, count: u32) -> Vec<u32> {
    (from..from + count).map(|i| (i * 37 + 11) % 160).collect()
}

fn logps(model: &CausalLm, groups: &[Group]) -> Vec<f32> {
    model.token_logps(&PackedBatch::new(groups), &Default::default())
}

#[test]
fn a_shared_prompt_and_other_groups_change_no_log_prob() {
    let (prompt, chosen, rejected, other) = (tokens(0, 11), tokens(20, 9), tokens(40, 14), tokens(60, 5));
    let alone = |prompt, answer| Group { prompt, answers: vec![answer] };
    for (name, dir) in families() {
        let model = load(&dir);
        let shared = Group { prompt: &prompt, answers: vec![&chosen, &rejected] };
        let packed = logps(&model, &[alone(&other, &chosen), shared]);
        let mut expected = logps(&model, &[alone(&other, &chosen)]);
        expected.extend(logps(&model, &[alone(&prompt, &chosen)]));
        expected.extend(logps(&model, &[alone(&prompt, &rejected)]));
        assert_eq!(packed.len(), expected.len());
        for (found, expected) in packed.iter().zip(&expected) {
            assert!((found - expected).abs() <= 1e-5, "{name}: {found} in the batch, {expected} alone");
        }
    }
}

#[test]
fn batched_generation_equals_each_prompt_alone() {
    let prompts = [tokens(0, 3), tokens(7, 14), tokens(30, 9)];
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let options =
        GenerateOptions { max_new_tokens: 12, sampling: Sampling::GREEDY, seed: 0, first_stream: 0, stop: vec![] };
    for (name, dir) in families() {
        let tokens = |mut generator: Generator, prompts: &[&[u32]]| -> Vec<Vec<u32>> {
            let generated = generator.generate(prompts, &options, &mut |_, _| Control::Continue);
            generated.into_iter().map(|generation| generation.ids).collect()
        };
        let model = load(&dir);
        let together = tokens(Generator::on_tensors(model.clone(), prompts.len()), &prompts);
        for (found, prompt) in together.iter().zip(&prompts) {
            assert_eq!(*found, tokens(Generator::on_tensors(model.clone(), 1), &[prompt])[0], "{name}");
        }
        assert_eq!(tokens(Generator::new(model, &DecodeOptions::default()), &prompts), together, "{name}");
    }
}

#[test]
fn a_model_goes_back_to_the_bits_it_came_from() {
    for (name, dir) in families() {
        let out = tempfile::tempdir().unwrap();
        save(&load(&dir), &ModelFiles::from_dir(&dir).unwrap(), out.path(), SHARD_BYTES).unwrap();
        let read = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
        let (before, after) = (read(&dir), read(out.path()));
        let (before, after) = (SafeTensors::deserialize(&before).unwrap(), SafeTensors::deserialize(&after).unwrap());
        assert_eq!(before.len(), after.len(), "{name}");
        for (tensor, view) in before.tensors() {
            let found = after.tensor(&tensor).unwrap();
            assert_eq!(found.shape(), view.shape(), "{name} {tensor}");
            assert!(found.data() == view.data(), "{name} {tensor}");
        }
    }
}

#[test]
fn a_family_counts_its_parameters() {
    for (name, dir) in families() {
        let model = load(&dir);
        assert_eq!(spo_model::parameters::count(&model, |_| true), model.spec().parameters(), "{name}");
    }
}

const SMALL: &str = r#""vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4,
    "num_attention_heads": 2, "max_position_embeddings": 4096"#;

#[test]
fn other_models_are_refused_with_the_reason() {
    for (model_type, key, reason) in [
        ("llama", r#""num_local_experts": 8"#, "mixture of experts of a kind"),
        ("quite_new_moe", r#""num_experts": 128"#, "mixture of experts of a kind"),
        ("llama4_text", r#""num_local_experts": 8"#, "chunked attention"),
        ("deepseek_v3", r#""n_routed_experts": 8"#, "multi-head latent attention"),
        ("qwen3_next", r#""num_experts": 8"#, "linear attention"),
        ("qwen3_5_text", r#""use_cache": true"#, "linear attention"),
        ("lfm2", r#""conv_L_cache": 3"#, "short convolutions"),
        ("gemma3n_text", r#""hidden_size_per_layer_input": 8"#, "AltUp"),
        ("gemma3", r#""vision_config": {}"#, "more than text"),
        ("llava", r#""text_config": {}"#, "more than text"),
        ("mamba", r#""use_cache": true"#, "no attention"),
    ] {
        let json = format!(r#"{{"model_type": "{model_type}", {SMALL}, {key}}}"#);
        let error = ModelSpec::from_json(&json).unwrap_err();
        assert!(matches!(error, ModelError::RefusedFamily { .. }), "{error}");
        assert!(error.to_string().contains(model_type) && error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn a_gemma_4_of_several_shapes_is_refused_by_the_key_that_says_so() {
    let text = std::fs::read_to_string(fixtures().join("families/gemma4/config.json")).unwrap();
    for (key, value, named) in [
        ("num_kv_shared_layers", json!(1), "keys and values of earlier ones"),
        ("attention_k_eq_v", json!(true), "values that are the keys"),
        ("enable_moe_block", json!(true), "experts beside a feed-forward block"),
        ("use_bidirectional_attention", json!("all"), "a causal language model"),
        ("per_layer_config", json!({"2": {"head_dim": 32}}), "per_layer_config.2.head_dim"),
        ("per_layer_config", Value::Null, "`global_head_dim`: found 512"),
        ("vocab_size_per_layer_input", json!(80), "vocab_size = 160"),
        ("rope_parameters", Value::Null, "a table for each kind of attention"),
    ] {
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config[key] = value;
        let error = ModelSpec::from_json(&config.to_string()).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn a_learned_activation_needs_a_block_without_a_gate() {
    let error = ModelSpec::from_json(&format!(r#"{{"model_type": "llama", {SMALL}, "hidden_act": "xielu"}}"#));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("hidden_act") && error.contains("found xielu"), "{error}");
}

#[test]
fn rope_reads_the_same_in_old_and_new_form() {
    for (old, new) in [
        (r#""rope_theta": 5e5"#, r#""rope_parameters": {"rope_type": "default", "rope_theta": 5e5}"#),
        (
            r#""rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 4.0}"#,
            r#""rope_parameters": {"rope_type": "linear", "rope_theta": 1e6, "factor": 4.0}"#,
        ),
        (
            r#""rope_theta": 1e6, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}"#,
            r#""rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 1024}"#,
        ),
    ] {
        let spec =
            |keys: &str| ModelSpec::from_json(&format!(r#"{{"model_type": "llama", {SMALL}, {keys}}}"#)).unwrap();
        assert_eq!(spec(old).ropes, spec(new).ropes);
    }
    let gemma = |keys: &str| {
        ModelSpec::from_json(&format!(
            r#"{{"model_type": "gemma3_text", {SMALL}, "head_dim": 8, "sliding_window_pattern": 2, {keys}}}"#
        ))
        .unwrap()
    };
    let old = gemma(
        r#""rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}"#,
    );
    let new = gemma(
        r#""rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}"#,
    );
    assert_eq!((&old.ropes, &old.layers), (&new.ropes, &new.layers));
    assert_eq!(old.layers.iter().map(|layer| layer.rope).collect::<Vec<_>>(), [Some(1), Some(0), Some(1), Some(0)]);
}

/// Frequencies and factors that transformers 5.23 computes for a head of 64 channels.
#[test]
fn stretched_frequencies_equal_transformers() {
    let golden = std::fs::read_to_string(fixtures().join("rope.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    for case in golden.as_array().unwrap() {
        let spec = ModelSpec::from_json(&case["config"].to_string()).unwrap();
        let rope = &spec.ropes[0];
        let expected: Vec<f64> =
            case["inverse_frequencies"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        let found = rope.inverse_frequencies();
        assert_eq!(found.len(), expected.len(), "{}", case["config"]);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((f64::from(*found) / expected - 1.0).abs() < 1e-5, "{}: {found} {expected}", case["config"]);
        }
        let factor = case["attention_factor"].as_f64().unwrap();
        assert!((rope.attention_factor() - factor).abs() < 1e-6, "{}", case["config"]);
    }
}
