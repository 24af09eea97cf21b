//! What `config.json` says of a saved reward model.

use crate::score_head::{Pooling, ScoreHead};
use serde_json::{Value, json};

/// transformers' class of a family with a score head; `None` for a family that is not known there.
fn class(family: &str) -> Option<&'static str> {
    Some(match family {
        "llama" => "LlamaForSequenceClassification",
        "mistral" => "MistralForSequenceClassification",
        "qwen2" => "Qwen2ForSequenceClassification",
        "qwen3" => "Qwen3ForSequenceClassification",
        "gemma" => "GemmaForSequenceClassification",
        "gemma2" => "Gemma2ForSequenceClassification",
        "gemma3_text" => "Gemma3TextForSequenceClassification",
        "phi3" => "Phi3ForSequenceClassification",
        "olmo2" => "Olmo2ForSequenceClassification",
        "smollm3" => "SmolLM3ForSequenceClassification",
        "gpt2" => "GPT2ForSequenceClassification",
        "gpt_neox" => "GPTNeoXForSequenceClassification",
        _ => return None,
    })
}

/// The configuration of a model of this family with this head, so that `AutoModelForSequenceClassification` loads it and
/// pools the same token. An unknown family keeps the class that it has, with another ending.
pub fn with_score_head(config: &mut Value, family: &str, head: &ScoreHead) {
    let old = config["architectures"][0].as_str().unwrap_or_default();
    let stem = ["ForCausalLM", "LMHeadModel"].iter().find_map(|end| old.strip_suffix(end));
    let class = class(family).map(String::from).or_else(|| Some(format!("{}ForSequenceClassification", stem?)));
    if let Some(class) = class {
        config["architectures"] = json!([class]);
    }
    if let Some(config) = config.as_object_mut() {
        // OpenRLHF's words for the head that it was.
        for key in ["value_head_prefix", "mean", "std"] {
            config.shift_remove(key);
        }
    }
    let labels = head.labels();
    let name = |label: usize| format!("LABEL_{label}");
    config["num_labels"] = labels.into();
    config["id2label"] =
        (0..labels).map(|label| (label.to_string(), name(label).into())).collect::<serde_json::Map<_, _>>().into();
    config["label2id"] = (0..labels).map(|label| (name(label), label.into())).collect::<serde_json::Map<_, _>>().into();
    config["pad_token_id"] = match head.pooling {
        Pooling::BeforePads(pad) => pad.into(),
        Pooling::Last => Value::Null,
    };
}
