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

use super::TokenizerSettings;
use crate::DataError;

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const TEMPLATE: &str = "chat_template.jinja";
const SPECIAL_MAP: &str = "special_tokens_map.json";
const GENERATION: &str = "generation_config.json";
const MODEL: &str = "config.json";
/// Where templates with names are, each in a file `NAME.jinja`.
const NAMED_TEMPLATES: &str = "additional_chat_templates";
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const ADDED: &str = "added_tokens.json";
const SENTENCEPIECE: &str = "tokenizer.model";
const OPTIONAL: [&str; 6] = [CONFIG, TEMPLATE, SPECIAL_MAP, GENERATION, ADDED, MODEL];

/// How Qwen2 and Qwen3 tokenizers split text before merging.
const QWEN_SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

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
    read_with(main, directory)
}

/// These files, and those that may stand beside them.
pub(super) fn read_with(main: &[&str], directory: &Path) -> Result<BTreeMap<String, Vec<u8>>, DataError> {
    let optional = OPTIONAL.into_iter().filter(|name| directory.join(name).is_file());
    let names = main.iter().copied().chain(optional).map(str::to_string).chain(template_files(directory)?);
    names.map(|name| Ok((name.clone(), read(&directory.join(name))?))).collect()
}

/// Whether a tokenizer is there in the form that is not read.
pub(super) fn has_sentencepiece(directory: &Path) -> bool {
    directory.join(SENTENCEPIECE).exists()
}

/// Files of a model directory that hold chat templates with names, relative to it: `additional_chat_templates/NAME.jinja`.
///
/// # Errors
/// When that directory is there and cannot be read.
pub fn template_files(directory: &Path) -> Result<Vec<String>, DataError> {
    let path = directory.join(NAMED_TEMPLATES);
    if !path.is_dir() {
        return Ok(vec![]);
    }
    let entries = std::fs::read_dir(&path).map_err(|source| DataError::Read { path, source })?;
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names
        .into_iter()
        .filter(|name| name.ends_with(".jinja"))
        .map(|name| format!("{NAMED_TEMPLATES}/{name}"))
        .collect())
}

fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::Read { path: path.into(), source })?;
    if crate::lfs::is_lfs_pointer(&bytes) {
        return Err(DataError::LfsPointer { path: path.into() });
    }
    Ok(bytes)
}

/// The files that belong to the tokenizer: all but the model's configuration.
pub(super) fn kept(mut files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    files.remove(MODEL);
    files
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

/// What the files say beside the vocabulary.
pub(super) fn settings(files: &BTreeMap<String, Vec<u8>>) -> Result<TokenizerSettings, DataError> {
    let config = read_json(files, CONFIG)?;
    let flag = |key: &str| config.get(key).and_then(Value::as_bool);
    let ends = [GENERATION, MODEL].into_iter().map(|name| ends(files, name)).collect::<Result<Vec<_>, _>>()?;
    Ok(TokenizerSettings {
        special: special_names(files)?,
        add_bos: flag("add_bos_token"),
        add_eos: flag("add_eos_token"),
        ends: ends.concat(),
        templates: templates(files, &config)?,
    })
}

/// `eos_token_id` of a file: one id, a list of them, or none.
fn ends(files: &BTreeMap<String, Vec<u8>>, name: &str) -> Result<Vec<u32>, DataError> {
    let json = read_json(files, name)?;
    let Some(value) = json.get("eos_token_id").filter(|value| !value.is_null()) else { return Ok(vec![]) };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids: Option<Vec<u32>> = match value {
        Value::Array(ids) => ids.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    };
    ids.ok_or_else(|| bad_file(name, format!("eos_token_id: found {value}, expected a token id or a list of them")))
}

/// Chat templates by name. Those in files of their own count alone where there are any, as in transformers.
fn templates(files: &BTreeMap<String, Vec<u8>>, config: &Value) -> Result<BTreeMap<String, String>, DataError> {
    let mut templates = BTreeMap::new();
    for (file, bytes) in files {
        let named = || file.strip_prefix(NAMED_TEMPLATES)?.strip_prefix('/')?.strip_suffix(".jinja");
        let name = if file == TEMPLATE { Some("default") } else { named() };
        let Some(name) = name else { continue };
        let text = std::str::from_utf8(bytes).map_err(|error| bad_file(file, error))?;
        templates.insert(name.to_string(), text.to_string());
    }
    if !templates.is_empty() {
        return Ok(templates);
    }
    let wrong = |found: &Value| {
        bad_file(CONFIG, format!("chat_template: found {found}, expected a text or a list of {{name, template}}"))
    };
    match config.get("chat_template") {
        None | Some(Value::Null) => {}
        Some(Value::String(template)) => {
            templates.insert("default".to_string(), template.clone());
        }
        Some(Value::Array(list)) => {
            for entry in list {
                let text = |key: &str| entry.get(key).and_then(Value::as_str);
                let (Some(name), Some(template)) = (text("name"), text("template")) else { return Err(wrong(entry)) };
                templates.insert(name.to_string(), template.to_string());
            }
        }
        Some(other) => return Err(wrong(other)),
    }
    Ok(templates)
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
