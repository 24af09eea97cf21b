//! From the metadata of a GGUF file to a `config.json`.

use super::rope;
use crate::gguf::architecture::{Architecture, window};
use crate::gguf::keys::{self, CONTEXT, KEYS, SCALING, WINDOW};
use crate::gguf::tensors::{EMBEDDING, HEAD};
use crate::quant::Format;
use crate::spec::Activation;
use crate::{ModelError, ModelSpec};
use serde_json::{Value as Json, json};
use spo_data::gguf::{Gguf, GgufError, Value};

const ARCHITECTURE: &str = "general.architecture";
const KIND: &str = "general.type";

/// Keys without which there is no model.
const REQUIRED: [&str; 5] = ["block_count", CONTEXT, "embedding_length", "feed_forward_length", "attention.head_count"];
/// Keys that change nothing.
const IDLE: [&str; 2] = ["rope.scaling.finetuned", "tensor_data_layout"];
/// Keys that change nothing where they are 0.
const IDLE_AT_0: [&str; 2] = ["expert_count", "expert_used_count"];
/// How often a block without a window comes: as a rule for the architecture.
const PATTERN: &str = "attention.sliding_window_pattern";

/// The architecture, and what a `config.json` of the model says.
pub fn read(file: &Gguf) -> Result<(&'static Architecture, Json), ModelError> {
    let architecture = architecture(file)?;
    let key = |name: &str| format!("{}.{name}", architecture.name);
    require_known(file, architecture)?;
    let mut config = json!({ "model_type": architecture.family, "architectures": [architecture.class] });
    for of in KEYS.iter().filter(|of| !of.config.is_empty() && of.is_of(architecture)) {
        let name = key(of.name);
        if let Some(value) = file.get(&name) {
            config[architecture.config_key(of.config)] =
                number(value).ok_or_else(|| file.expected(&name, "a number"))?;
        }
    }
    let activation = match architecture.activations[0] {
        Activation::Silu | Activation::Clamped { .. } => "silu",
        Activation::Xielu => "xielu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
    };
    config[architecture.config_key("hidden_act")] = activation.into();
    let Some([tokens, _]) = file.tensor(EMBEDDING).map(|info| info.shape.as_slice()) else {
        return Err(file.error(format!("tensor `{EMBEDDING}`"), "expected a matrix with a row for each token").into());
    };
    config["vocab_size"] = (*tokens).into();
    config["tie_word_embeddings"] = tied(file)?.into();
    if let Some(mixture) = architecture.mixture {
        config["norm_topk_prob"] = mixture.renormalised.into();
    }
    if ["llama", "smollm3", "gpt_neox", "granite", "granitemoe", "seed_oss", "glm4"].contains(&architecture.family) {
        let has = |name: &str| file.tensor(name).is_some();
        config["attention_bias"] = (has("blk.0.attn_q.bias") || has("blk.0.attn_qkv.bias")).into();
        config["mlp_bias"] = has("blk.0.ffn_up.bias").into();
    }
    let shape = Shape::read(file, architecture)?;
    if architecture.windows_but_every.is_some() {
        let width = architecture.scale_width(shape.layers, shape.hidden, shape.heads, shape.head_dim);
        config["query_pre_attn_scalar"] = width.into();
    }
    rope::read(file, architecture, shape.head_dim, &mut config)?;
    for (role, key) in [("bos_token_id", "bos_token_id"), ("eos_token_id", "eos_token_id")] {
        if let Some(id) = file.count(&format!("tokenizer.ggml.{key}"))? {
            config[role] = id.into();
        }
    }
    Ok((architecture, config))
}

fn architecture(file: &Gguf) -> Result<&'static Architecture, ModelError> {
    if file.text(KIND)?.is_some_and(|kind| kind != "model") {
        return Err(file.expected(KIND, "model").into());
    }
    let name = file.text(ARCHITECTURE)?.unwrap_or_default();
    let expected = || file.expected(ARCHITECTURE, &format!("one of {}", Architecture::names()));
    let found = Architecture::named(name).ok_or_else(expected)?;
    // Mistral's and Mixtral's files bear Llama's name, OLMo 3's that of OLMo 2.
    let count = |key: &str| file.count(&format!("{name}.{key}"));
    let (experts, window) = (count("expert_count")?.unwrap_or(0), count(WINDOW)?.is_some());
    let family = match found.family {
        "llama" if experts > 0 => "mixtral",
        "llama" if window => "mistral",
        "olmo2" if window => "olmo3",
        family => family,
    };
    Ok(found.namesake(family).unwrap_or(found))
}

/// Refuses keys of the architecture that this crate does not know: they may change what the model computes.
fn require_known(file: &Gguf, architecture: &Architecture) -> Result<(), GgufError> {
    let prefix = format!("{}.", architecture.name);
    for key in file.keys() {
        let Some(name) = key.strip_prefix(&prefix) else { continue };
        let known = KEYS.iter().any(|of| of.name == name && of.is_of(architecture))
            || SCALING.contains(&name)
            || IDLE.contains(&name);
        let idle = match name {
            PATTERN => windows_as_usual(file, key, architecture.windows_but_every)?,
            _ => IDLE_AT_0.contains(&name) && file.get(key) == Some(&Value::Whole(0)),
        };
        if !known && !idle {
            return Err(file.expected(key, "no such key: what it changes in the model is not known here"));
        }
    }
    Ok(())
}

/// Whether blocks without a window come as often as the architecture has it; newer files say it block by block.
fn windows_as_usual(file: &Gguf, key: &str, every: Option<usize>) -> Result<bool, GgufError> {
    if !matches!(file.get(key), Some(Value::List { .. })) {
        return Ok(file.count(key)? == every);
    }
    let blocks = file.switches(key)?.unwrap_or_default();
    let usual = |every: usize| blocks.iter().enumerate().all(|(index, on)| *on != (index + 1).is_multiple_of(every));
    Ok(every.is_some_and(usual))
}

/// Numbers that other values follow from.
struct Shape {
    layers: usize,
    hidden: usize,
    heads: usize,
    head_dim: usize,
}

impl Shape {
    fn read(file: &Gguf, architecture: &Architecture) -> Result<Self, GgufError> {
        let key = |name: &str| format!("{}.{name}", architecture.name);
        for name in REQUIRED {
            if file.count(&key(name))?.is_none_or(|count| count == 0) {
                return Err(file.expected(&key(name), "a whole number above 0"));
            }
        }
        let count = |name: &str| Ok(file.count(&key(name))?.unwrap_or(1));
        let (layers, hidden, heads) =
            (count("block_count")?, count("embedding_length")?, count("attention.head_count")?);
        // Each block takes memory before its tensors are looked for.
        let tensors = file.tensors().count();
        if layers > tensors {
            return Err(file.expected(&key("block_count"), &format!("at most the {tensors} tensors of the file")));
        }
        let head_dim = file.count(&key("attention.key_length"))?.unwrap_or(hidden / heads);
        if head_dim == 0 {
            return Err(file.expected(&key("attention.head_count"), &format!("at most the {hidden} channels")));
        }
        Ok(Self { layers, hidden, heads, head_dim })
    }
}

/// Whether the head is the embedding: it is absent, or its copy.
fn tied(file: &Gguf) -> Result<bool, GgufError> {
    let (Some(head), Some(embedding)) = (file.tensor(HEAD), file.tensor(EMBEDDING)) else { return Ok(true) };
    let size = Format::of_code(head.kind).and_then(|format| format.size(head.shape.iter().product()));
    let Some(size) = size.filter(|_| (head.kind, &head.shape) == (embedding.kind, &embedding.shape)) else {
        return Ok(false);
    };
    Ok(file.bytes(HEAD, size)?.bytes == file.bytes(EMBEDDING, size)?.bytes)
}

fn number(value: &Value) -> Option<Json> {
    match value {
        Value::Whole(number) => Some(u64::try_from(*number).ok()?.into()),
        Value::Real(number) => Some((*number).into()),
        Value::Bool(on) => Some((*on).into()),
        Value::Text(_) | Value::List { .. } => None,
    }
}

/// Compares what the file says with what the model that was made of it is: a value that its family cannot have is an
/// error and not another model.
pub fn check(file: &Gguf, architecture: &Architecture, spec: &ModelSpec) -> Result<(), ModelError> {
    let scaling = architecture.ropes(spec).0.map(keys::scaling).unwrap_or_default();
    let own = KEYS.iter().filter(|of| of.is_of(architecture));
    let of_keys = own.filter_map(|of| Some((of.name, (of.value)(architecture, spec)?)));
    for (name, ours) in of_keys.chain(scaling) {
        let key = format!("{}.{name}", architecture.name);
        // The context may end where a window does.
        let Some(found) = file.get(&key).filter(|_| name != CONTEXT) else { continue };
        let same = match (found, &ours) {
            (Value::Whole(found), keys::Value::U32(ours)) => *found == i128::from(*ours),
            (Value::Real(found), keys::Value::F32(ours)) => *found as f32 == *ours,
            (Value::Bool(found), keys::Value::Bool(ours)) => found == ours,
            (Value::Text(found), keys::Value::String(ours)) => found == ours,
            _ => false,
        };
        if !same {
            return Err(file.expected(&key, &format!("{ours} in a model of the family {}", spec.family)).into());
        }
    }
    let key = format!("{}.{WINDOW}", architecture.name);
    match file.count(&key)? {
        Some(found) if found > 0 && window(spec) != Some(found) => {
            Err(file.expected(&key, &format!("no window in a model of the family {}", spec.family)).into())
        }
        _ => Ok(()),
    }
}
