//! Architectures that are known and refused, so that the error says why.

use super::Config;
use serde_json::{Value, json};

/// Keys that mark a mixture of experts.
const EXPERTS: &[&str] = &[
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "moe_num_experts",
];

/// Keys that mark a model of images, sound or both.
const MODALITIES: &[&str] =
    &["vision_config", "text_config", "audio_config", "image_token_id", "vision_start_token_id"];

fn present(config: &Config, keys: &[&'static str]) -> Option<&'static str> {
    keys.iter().copied().find(|key| config.has(key))
}

/// Why a model without experts is refused, if a key says that it has some.
pub fn experts(config: &Config) -> Option<String> {
    let key = present(config, EXPERTS)?;
    Some(format!("`{key}` marks a mixture of experts of a kind that is not built here"))
}

/// Why weights that are stored this way are not read, if they are not.
fn packed(quantization: &Value, model_type: &str) -> Option<String> {
    let method = quantization["quant_method"].as_str().unwrap_or("an unnamed method");
    let text = |key: &str, default: &'static str| quantization[key].as_str().unwrap_or(default).to_lowercase();
    let bits = quantization["bits"].as_u64().unwrap_or(4);
    let variant = match method {
        "mxfp4" if model_type == "gpt_oss" => return None,
        // Their matrices are stored the other way round.
        _ if model_type == "gpt2" => String::new(),
        "gptq" => match (bits, text("checkpoint_format", "gptq").as_str()) {
            (2 | 4 | 8, "gptq") => return None,
            (bits, format) => format!(", {bits} bits, in the format {format:?} (read are 2, 4 and 8 bits of \"gptq\")"),
        },
        "awq" => match (bits, text("version", "gemm").as_str()) {
            (4, "gemm") => return None,
            (bits, version) => format!(", {bits} bits, in the version {version:?} (read are 4 bits of \"gemm\")"),
        },
        "bitsandbytes" => match quantization["load_in_4bit"].as_bool() {
            Some(true) => return None,
            _ => " in 8 bits (read are its 4-bit code books)".into(),
        },
        "fp8" => match (&quantization["weight_block_size"], text("activation_scheme", "dynamic").as_str()) {
            (size, "dynamic") if *size == json!([128, 128]) => return None,
            (size, scheme) => format!(
                ", blocks of {size}, activations {scheme} (read are blocks of [128, 128] and dynamic activations)"
            ),
        },
        _ => String::new(),
    };
    Some(format!(
        "`quantization_config`: its weights are stored by {method}{variant}; use the original model in f32, bf16 or f16"
    ))
}

/// Why a configuration is refused, if it is.
pub fn reason(config: &Config, model_type: &str) -> Option<String> {
    if let Some(key) = present(config, MODALITIES) {
        return Some(format!("`{key}` marks a model of more than text; only text decoders are trained"));
    }
    if let Some(why) = config.get("quantization_config").and_then(|quantization| packed(quantization, model_type)) {
        return Some(why);
    }
    let why = match model_type {
        "llama4_text" | "llama4" => {
            "chunked attention, and experts whose weights scale their input; neither is built here"
        }
        "deepseek_v2" | "deepseek_v3" | "kimi_k2" | "glm4_moe_lite" => {
            "keys and values are compressed (multi-head latent attention), which is not built here"
        }
        "qwen3_next" | "qwen3_5_text" | "qwen3_5_moe_text" | "kimi_linear" | "olmo_hybrid" => {
            "most blocks have linear attention (gated delta rule), which is not built here"
        }
        "lfm2" | "lfm2_moe" => "most blocks are short convolutions, which are not built here",
        "jamba" | "granitemoehybrid" | "nemotron_h" | "falcon_h1" | "zamba2" | "bamba" => {
            "some blocks are state-space models (Mamba), which are not built here"
        }
        "gemma3n_text" => {
            "the residual stream is several (AltUp), and later blocks use the keys and values of earlier ones; \
             neither is built here"
        }
        "phimoe" | "dbrx" | "glm4_moe" | "ernie4_5_moe" | "hunyuan_v1_moe" | "minimax" | "exaone_moe" => {
            "a mixture of experts of a kind that is not built here"
        }
        "mamba" | "mamba2" | "rwkv" | "recurrent_gemma" | "falcon_mamba" => {
            "it has no attention; only attention decoders are trained"
        }
        "t5" | "bart" | "mt5" | "whisper" => {
            "it has an encoder; only decoders are trained (a reward model of this kind can score as an external scorer)"
        }
        "bert" | "roberta" | "distilbert" | "modernbert" | "deberta" | "deberta-v2" | "electra" | "albert"
        | "xlm-roberta" | "camembert" | "longformer" => {
            "it is an encoder, not a causal language model (a reward model of this kind can score as an external scorer)"
        }
        _ => return None,
    };
    Some(why.into())
}
