//! The files of a tokenizer directory and the special tokens they name.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use crate::DataError;

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const TEMPLATE: &str = "chat_template.jinja";
const SPECIAL_MAP: &str = "special_tokens_map.json";
const GENERATION: &str = "generation_config.json";
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const ADDED: &str = "added_tokens.json";
const SENTENCEPIECE: &str = "tokenizer.model";
const OPTIONAL: [&str; 5] = [CONFIG, TEMPLATE, SPECIAL_MAP, GENERATION, ADDED];

/// How Qwen2 and Qwen3 tokenizers split text before merging.
const QWEN_SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Special tokens by role.
#[derive(Debug, Clone, Default)]
pub(super) struct SpecialTokens {
    pub(super) bos: Option<u32>,
    /// EOS first; generation may stop at any of them.
    pub(super) terminators: Vec<u32>,
    /// Spelling by variable name, such as `bos_token`: what a chat template sees.
    pub(super) names: BTreeMap<String, String>,
}

pub(super) fn read_directory(directory: &Path) -> Result<BTreeMap<String, Vec<u8>>, DataError> {
    let has = |name: &str| directory.join(name).is_file();
    let main: &[&str] = if has(TOKENIZER) {
        &[TOKENIZER]
    } else if has(VOCABULARY) && has(MERGES) {
        &[VOCABULARY, MERGES]
    } else {
        let message = if !directory.is_dir() {
            "no such directory".to_string()
        } else if has(SENTENCEPIECE) {
            format!(
                "only {SENTENCEPIECE} (sentencepiece) is there; convert it with transformers: \
                 AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) writes {TOKENIZER}"
            )
        } else {
            format!("no {TOKENIZER}, and no {VOCABULARY} with {MERGES}")
        };
        return Err(DataError::NoTokenizer { path: directory.to_path_buf(), message });
    };
    main.iter()
        .copied()
        .chain(OPTIONAL.into_iter().filter(|name| has(name)))
        .map(|name| {
            let path = directory.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => Ok((name.to_string(), bytes)),
                Err(source) => Err(DataError::Read { path, source }),
            }
        })
        .collect()
}

pub(super) fn build(files: &BTreeMap<String, Vec<u8>>) -> Result<tokenizers::Tokenizer, DataError> {
    if let Some(bytes) = files.get(TOKENIZER) {
        return tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| bad_file(TOKENIZER, error));
    }
    byte_level(files)
}

/// A byte-level tokenizer (GPT-2 or Qwen2, by `tokenizer_class`) from its vocabulary and merges.
fn byte_level(files: &BTreeMap<String, Vec<u8>>) -> Result<tokenizers::Tokenizer, DataError> {
    let bytes = |name| files.get(name).map_or(&[][..], Vec::as_slice);
    let vocabulary: Vocab = serde_json::from_slice(bytes(VOCABULARY)).map_err(|error| bad_file(VOCABULARY, error))?;
    let text = std::str::from_utf8(bytes(MERGES)).map_err(|error| bad_file(MERGES, error))?;
    let mut merges = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || (index == 0 && line.starts_with("#version")) {
            continue;
        }
        let Some((left, right)) = line.split_once(' ') else {
            return Err(bad_file(MERGES, format!("line {}: expected two tokens", index + 1)));
        };
        merges.push((left.to_string(), right.to_string()));
    }
    let model = BPE::builder().vocab_and_merges(vocabulary, merges).build().map_err(|error| bad_file(MERGES, error))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let config = read_json(files, CONFIG)?;
    match config.get("tokenizer_class").and_then(Value::as_str) {
        Some("Qwen2Tokenizer" | "Qwen2TokenizerFast") => {
            let pattern = SplitPattern::Regex(QWEN_SPLIT.into());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                .map_err(|error| bad_file(CONFIG, error))?;
            let bytes = ByteLevel::new(false, true, false);
            tokenizer
                .with_normalizer(Some(NFC))
                .map_err(|error| bad_file(CONFIG, error))?
                .with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])));
        }
        None | Some("GPT2Tokenizer" | "GPT2TokenizerFast") => {
            tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        }
        Some(class) => {
            let message = format!(
                "{VOCABULARY} with {MERGES} of a {class} cannot be read without its splitting rules; \
                 AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) writes {TOKENIZER}"
            );
            return Err(bad_file(CONFIG, message));
        }
    }
    // Added tokens follow the vocabulary in the order of their ids.
    let mut added: Vec<(u64, String)> = match read_json(files, ADDED)? {
        Value::Object(map) => map.into_iter().filter_map(|(token, id)| Some((id.as_u64()?, token))).collect(),
        _ => Vec::new(),
    };
    added.sort();
    let not_special = |token: &str| {
        let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
        let entry = decoder
            .and_then(|map| map.values().find(|entry| entry.get("content").and_then(Value::as_str) == Some(token)));
        entry.and_then(|entry| entry.get("special")?.as_bool()) == Some(false)
    };
    let special = special_names(files)?.into_values();
    let added = added.into_iter().map(|(_, token)| token).chain(special).map(|token| {
        let special = !not_special(&token);
        AddedToken::from(token, special).normalized(false)
    });
    tokenizer.add_tokens(added).map_err(|error| bad_file(ADDED, error))?;
    Ok(tokenizer)
}

pub(super) fn chat_template(files: &BTreeMap<String, Vec<u8>>) -> Result<Option<String>, DataError> {
    if let Some(bytes) = files.get(TEMPLATE) {
        let text = std::str::from_utf8(bytes).map_err(|error| bad_file(TEMPLATE, error))?;
        return Ok(Some(text.to_string()));
    }
    let config = read_json(files, CONFIG)?;
    Ok(match config.get("chat_template") {
        Some(Value::String(template)) => Some(template.clone()),
        // Several named templates: "default" is the one transformers uses unasked.
        Some(Value::Array(named)) => named
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| entry.get("template")?.as_str())
            .map(str::to_string),
        _ => None,
    })
}

impl SpecialTokens {
    pub(super) fn read(
        files: &BTreeMap<String, Vec<u8>>,
        tokenizer: &tokenizers::Tokenizer,
    ) -> Result<Self, DataError> {
        let names = special_names(files)?;
        let id = |role: &str| names.get(role).and_then(|token| tokenizer.token_to_id(token));
        let mut terminators: Vec<u32> = id("eos_token").into_iter().collect();
        let generation = read_json(files, GENERATION)?;
        let more = match generation.get("eos_token_id") {
            Some(Value::Array(ids)) => ids.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        for id in more.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()) {
            if !terminators.contains(&id) {
                terminators.push(id);
            }
        }
        Ok(Self { bos: id("bos_token"), terminators, names })
    }
}

/// Role to spelling; `tokenizer_config.json` wins over `special_tokens_map.json`.
fn special_names(files: &BTreeMap<String, Vec<u8>>) -> Result<BTreeMap<String, String>, DataError> {
    let mut names = BTreeMap::new();
    for file in [SPECIAL_MAP, CONFIG] {
        let Value::Object(map) = read_json(files, file)? else {
            continue;
        };
        for (role, value) in map {
            let text = match &value {
                Value::String(text) => Some(text.as_str()),
                other => other.get("content").and_then(Value::as_str),
            };
            if let (true, Some(text)) = (role.ends_with("_token"), text) {
                names.insert(role, text.to_string());
            }
        }
    }
    Ok(names)
}

fn read_json(files: &BTreeMap<String, Vec<u8>>, name: &str) -> Result<Value, DataError> {
    match files.get(name) {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|error| bad_file(name, error)),
        None => Ok(Value::Null),
    }
}

pub(super) fn bad_file(name: &str, error: impl ToString) -> DataError {
    DataError::BadTokenizer { file: name.to_string(), message: error.to_string() }
}
