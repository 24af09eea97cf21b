//! Architectures that are known and refused, so that the error says why.

use super::Config;

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

/// Why a configuration is refused, if it is.
pub fn reason(config: &Config, model_type: &str) -> Option<String> {
    let present = |keys: &[&'static str]| keys.iter().copied().find(|key| config.has(key));
    if let Some(key) = present(EXPERTS) {
        return Some(format!("`{key}` marks a mixture of experts; only dense decoders are trained"));
    }
    if let Some(key) = present(MODALITIES) {
        return Some(format!("`{key}` marks a model of more than text; only text decoders are trained"));
    }
    if let Some(quantization) = config.get("quantization_config") {
        let method = quantization["quant_method"].as_str().unwrap_or("an unnamed method");
        return Some(format!(
            "`quantization_config`: its weights are stored by {method}; use the original model in f32, bf16 or f16"
        ));
    }
    let why = match model_type {
        "mixtral" | "qwen2_moe" | "qwen3_moe" | "olmoe" | "phimoe" | "deepseek_v2" | "deepseek_v3" | "gpt_oss"
        | "dbrx" | "jamba" | "granitemoe" => "a mixture of experts; only dense decoders are trained",
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
