//! The keys of well-known models' configurations that decide how they are read, written down by hand.

use serde_json::{Value, json};
use spo_model::ModelSpec;
use spo_model::spec::RopeScaling;

/// The keys that most of them share.
fn config(model_type: &str, [vocab, hidden, inner, layers, heads, kv_heads]: [usize; 6], more: Value) -> String {
    let mut config = json!({
        "model_type": model_type, "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "hidden_act": "silu", "rms_norm_eps": 1e-6, "attention_bias": false, "tie_word_embeddings": false,
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config.to_string()
}

fn llama3(factor: f64) -> Value {
    json!({"factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"})
}

/// Name, configuration, parameters in millions as its authors state them, and the context.
fn known() -> Vec<(&'static str, String, f64, usize)> {
    vec![
        (
            "Llama 3.1 8B",
            config(
                "llama",
                [128_256, 4096, 14_336, 32, 32, 8],
                json!({"mlp_bias": false, "rope_theta": 500_000.0,
                "rope_scaling": llama3(8.0), "max_position_embeddings": 131_072, "pretraining_tp": 1}),
            ),
            8030.0,
            131_072,
        ),
        (
            "Llama 3.2 1B",
            config(
                "llama",
                [128_256, 2048, 8192, 16, 32, 8],
                json!({"head_dim": 64, "rope_theta": 500_000.0,
                "rope_scaling": llama3(32.0), "max_position_embeddings": 131_072, "tie_word_embeddings": true}),
            ),
            1236.0,
            131_072,
        ),
        (
            "Mistral 7B 0.3",
            config(
                "mistral",
                [32_768, 4096, 14_336, 32, 32, 8],
                json!({"rope_theta": 1e6, "sliding_window": null,
                "max_position_embeddings": 32_768, "add_cross_attention": false, "is_decoder": false}),
            ),
            7248.0,
            32_768,
        ),
        (
            "Phi 3 mini 4k",
            config(
                "phi3",
                [32_064, 3072, 8192, 32, 32, 32],
                json!({"rope_theta": 10_000.0, "rope_scaling": null,
                "sliding_window": 2047, "max_position_embeddings": 4096, "original_max_position_embeddings": 4096,
                "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}}),
            ),
            3821.0,
            4096,
        ),
        (
            "Qwen 2.5 7B",
            config(
                "qwen2",
                [152_064, 3584, 18_944, 28, 28, 4],
                json!({"rope_theta": 1e6, "sliding_window": 131_072,
                "use_sliding_window": false, "max_window_layers": 28, "max_position_embeddings": 32_768}),
            ),
            7616.0,
            32_768,
        ),
        (
            "Qwen 3 8B",
            config(
                "qwen3",
                [151_936, 4096, 12_288, 36, 32, 8],
                json!({"head_dim": 128, "rope_theta": 1_000_000,
                "sliding_window": null, "use_sliding_window": false, "max_position_embeddings": 40_960}),
            ),
            8191.0,
            40_960,
        ),
        (
            "Gemma 2B",
            config(
                "gemma",
                [256_000, 2048, 16_384, 18, 8, 1],
                json!({"head_dim": 256, "hidden_act": "gelu",
                "rope_theta": 10_000.0, "max_position_embeddings": 8192, "tie_word_embeddings": true}),
            ),
            2506.0,
            8192,
        ),
        (
            "Gemma 2 2B",
            config(
                "gemma2",
                [256_000, 2304, 9216, 26, 8, 4],
                json!({"head_dim": 256,
                "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
                "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 256,
                "sliding_window": 4096, "cache_implementation": "hybrid", "rope_theta": 10_000.0,
                "max_position_embeddings": 8192, "tie_word_embeddings": true}),
            ),
            2614.0,
            8192,
        ),
    ]
}

#[test]
fn well_known_models_have_the_size_that_they_are_known_for() {
    for (name, text, millions, context) in known() {
        let spec = ModelSpec::from_json(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = spec.parameters() as f64 / 1e6;
        assert!((found - millions).abs() <= 1.0, "{name}: {found} million parameters, expected {millions}");
        assert_eq!(spec.context, context, "{name}");
    }
    let spec = |index: usize| ModelSpec::from_json(&known()[index].1).unwrap();
    assert!(matches!(spec(0).ropes[0].scaling, RopeScaling::Llama3 { factor: 8.0, .. }));
    let windows = |index: usize| spec(index).layers.iter().filter(|layer| layer.attention.window.is_some()).count();
    assert_eq!([2, 3, 4, 7].map(windows), [0, 32, 0, 13]);
    assert_eq!((spec(7).logit_softcap, spec(7).layers[0].attention.softcap), (Some(30.0), Some(50.0)));
}

#[test]
fn quantised_checkpoints_are_refused_for_what_they_are() {
    let text = json!({"model_type": "gpt2", "vocab_size": 50_257, "n_embd": 768, "n_head": 12, "n_layer": 12,
        "n_positions": 1024, "n_inner": null, "activation_function": "gelu_new",
        "quantization_config": {"quant_method": "gptq", "bits": 4}});
    let error = ModelSpec::from_json(&text.to_string()).unwrap_err().to_string();
    assert!(error.contains("`gpt2` is refused: `quantization_config`") && error.contains("gptq"), "{error}");
}
