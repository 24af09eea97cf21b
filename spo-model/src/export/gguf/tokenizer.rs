//! A `tokenizer.json` in llama.cpp's terms.

use super::splitting;
use crate::gguf::keys::Value;
use crate::gguf::unsupported;
use crate::load::ModelFiles;
use crate::{ModelError, ModelSpec};
use serde_json::Value as Json;
use spo_data::SpecialTokens;
use std::collections::{BTreeMap, HashMap};

/// Kinds of tokens.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The keys that describe the tokenizer and the chat template, and the model's name.
pub fn metadata(files: &ModelFiles, spec: &ModelSpec, name: &str) -> Result<Vec<(String, Value)>, ModelError> {
    let json = |name: &str| -> Result<Option<Json>, ModelError> {
        let parse = |bytes: &[u8]| serde_json::from_slice(bytes);
        let parsed = files.get(name).map(parse).transpose();
        parsed.map_err(|e| ModelError::Json { file: name.into(), reason: e.to_string() })
    };
    let tokenizer = json("tokenizer.json")?.ok_or_else(|| unsupported("a model without tokenizer.json"))?;
    let model = &tokenizer["model"];
    if model["type"] != "BPE" {
        return Err(unsupported(&format!("a tokenizer of type {}; BPE is written", model["type"])));
    }
    let vocabulary = Vocabulary::new(&tokenizer, spec.vocab_size)?;
    let sentence_piece = model["byte_fallback"] == true;
    splitting::check(&tokenizer, sentence_piece)?;
    let mut all: Vec<(String, Value)> = vec![];
    if let Some(name) = vocabulary.model_name(spec.family, name) {
        all.push(("general.name".into(), Value::String(name)));
    }
    let mut add = |key: &str, value: Value| all.push((format!("tokenizer.ggml.{key}"), value));
    if sentence_piece {
        add("model", Value::String("llama".into()));
        add("pre", Value::String("default".into()));
        add("scores", Value::Numbers(vocabulary.scores(&merges(model))));
        add("add_space_prefix", Value::Bool(splitting::prepends_space(&tokenizer)));
    } else {
        add("model", Value::String("gpt2".into()));
        add("pre", Value::String(splitting::split_name(&tokenizer)?.into()));
        add(
            "merges",
            Value::Strings(merges(model).into_iter().map(|(left, right)| format!("{left} {right}")).collect()),
        );
    }
    let meaning = spo_data::Tokenizer::from_files(files.by_name())?;
    special_tokens(meaning.special())?.into_iter().for_each(|(key, value)| add(key, value));
    add("token_type", Value::Integers(vocabulary.kinds));
    add("tokens", Value::Strings(vocabulary.tokens));
    all.extend(templates(&meaning.settings().templates));
    Ok(all)
}

/// Which tokens begin, end and fill a text.
fn special_tokens(special: &SpecialTokens) -> Result<Vec<(&'static str, Value)>, ModelError> {
    let eos = special.eos.or(special.ends.first().copied());
    // A reader takes these two for ends beside EOS.
    let mut more = special.ends.iter().copied().filter(|id| Some(*id) != eos);
    let ids = [
        ("bos_token_id", special.bos),
        ("eos_token_id", eos),
        ("eot_token_id", more.next()),
        ("eom_token_id", more.next()),
        ("unknown_token_id", special.unknown),
        ("padding_token_id", special.pad),
    ];
    let mut keys: Vec<(&str, Value)> = ids.into_iter().filter_map(|(key, id)| Some((key, Value::U32(id?)))).collect();
    for (key, written, token) in
        [("add_bos_token", &special.before, special.bos), ("add_eos_token", &special.after, special.eos)]
    {
        match written.as_slice() {
            [] => keys.push((key, Value::Bool(false))),
            [one] if Some(*one) == token => keys.push((key, Value::Bool(true))),
            other => return Err(unsupported(&format!("a tokenizer that puts the tokens {other:?} around a text"))),
        }
    }
    Ok(keys)
}

/// The default template, and those with other names.
fn templates(named: &BTreeMap<String, String>) -> Vec<(String, Value)> {
    let key = |name: &str| match name {
        "default" => "tokenizer.chat_template".to_string(),
        name => format!("tokenizer.chat_template.{name}"),
    };
    let mut keys: Vec<(String, Value)> =
        named.iter().map(|(name, template)| (key(name), Value::String(template.clone()))).collect();
    let others: Vec<String> = named.keys().filter(|name| *name != "default").cloned().collect();
    if !others.is_empty() {
        keys.push(("tokenizer.chat_templates".into(), Value::Strings(others)));
    }
    keys
}

struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<i32>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// Tokens by id; ids that no token has, up to the size of the model's table, are unused.
    fn new(tokenizer: &Json, size: usize) -> Result<Self, ModelError> {
        let mut tokens: Vec<String> = (0..size).map(|id| format!("[PAD{id}]")).collect();
        let (mut kinds, mut ids) = (vec![UNUSED; size], HashMap::new());
        let mut put = |token: &str, id: &Json, kind: i32| {
            let slot = id.as_u64().map(|id| id as usize).filter(|id| *id < size);
            let slot =
                slot.ok_or_else(|| unsupported(&format!("a token {token:?} outside the {size} of the model")))?;
            (tokens[slot], kinds[slot]) = (token.into(), kind);
            ids.insert(token.to_string(), slot as u32);
            Ok::<(), ModelError>(())
        };
        let unknown = tokenizer["model"]["unk_token"].as_str();
        for (token, id) in tokenizer["model"]["vocab"].as_object().into_iter().flatten() {
            let byte = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
            let kind = if Some(token.as_str()) == unknown {
                UNKNOWN
            } else if byte {
                BYTE
            } else {
                NORMAL
            };
            put(token, id, kind)?;
        }
        for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
            let token = added["content"].as_str().unwrap_or_default();
            let kind = match added["special"] == true {
                true if Some(token) == unknown => UNKNOWN,
                true => CONTROL,
                false => USER_DEFINED,
            };
            put(token, &added["id"], kind)?;
        }
        Ok(Self { tokens, kinds, ids })
    }

    /// The model's name. llama.cpp drops the spaces after Phi 3's special tokens, and looks for those tokens, where
    /// the name speaks of Phi 3; nowhere else does a file say so.
    fn model_name(&self, family: &str, name: &str) -> Option<String> {
        let known = ["<unk>", "<s>", "<|endoftext|>"].iter().all(|token| self.ids.contains_key(*token));
        let named = ["phi-3", "phi3"].iter().any(|phi| name.to_lowercase().contains(phi));
        match (family == "phi3" && known, named) {
            (true, false) => Some(format!("Phi-3 {name}")),
            (false, true) => None,
            _ => Some(name.into()),
        }
    }

    /// A merged token's score is the lower the later its merge; llama.cpp joins the highest first.
    fn scores(&self, merges: &[(String, String)]) -> Vec<f32> {
        let mut scores = vec![0.0; self.tokens.len()];
        for (rank, (left, right)) in merges.iter().enumerate().rev() {
            if let Some(id) = self.ids.get(&format!("{left}{right}")) {
                scores[*id as usize] = -(rank as f32 + 1.0);
            }
        }
        scores
    }
}

/// Pairs in the order of their merges; both forms of the file.
fn merges(model: &Json) -> Vec<(String, String)> {
    let pair = |merge: &Json| match merge {
        Json::String(text) => text.split_once(' ').map(|(left, right)| (left.to_string(), right.to_string())),
        pair => Some((pair[0].as_str()?.to_string(), pair[1].as_str()?.to_string())),
    };
    model["merges"].as_array().into_iter().flatten().filter_map(pair).collect()
}
