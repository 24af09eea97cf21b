//! How a `tokenizer.json` treats text before the merges, in llama.cpp's terms: it knows few ways, each by a name.

use super::unsupported;
use crate::ModelError;
use serde_json::{Value, json};

/// How Llama 3 and many after it split text before the merges.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The ways of splitting that llama.cpp knows by name: the expression that `tokenizer.json` has for one, and
/// whether a word that is a token is not split further.
const SPLITS: [(&str, &str, bool); 3] = [
    ("llama-bpe", LLAMA_3, true),
    ("dbrx", LLAMA_3, false),
    (
        "qwen2",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        false,
    ),
];

/// What SentencePiece writes for a space.
const SPACE: &str = "▁";

/// Refuses what llama.cpp does not do to a text before it splits it. It normalises nothing but spaces of SentencePiece's
/// vocabularies. NFC may stand in byte-level ones, as it does in Qwen's: almost all text is in that form already.
pub fn check(tokenizer: &Value, sentence_piece: bool) -> Result<(), ModelError> {
    let spaces = [
        json!({"type": "Prepend", "prepend": SPACE}),
        json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}),
    ];
    let known = |step: &Value| if sentence_piece { spaces.contains(step) } else { step["type"] == "NFC" };
    if let Some(step) = steps(&tokenizer["normalizer"], "normalizers").into_iter().find(|step| !known(step)) {
        return Err(unsupported(&format!("a tokenizer with the normalizer {step}, which llama.cpp does not have")));
    }
    let no_split =
        json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
    let known = |step: &Value| match step["type"].as_str() {
        Some("Metaspace") => sentence_piece && step["replacement"] == SPACE,
        // Gemma's: there is no space left to split at.
        Some("Split") if sentence_piece => *step == no_split,
        Some("Split") => step["behavior"] == "Isolated" && step["invert"] != true,
        Some("ByteLevel") => !sentence_piece && step["add_prefix_space"] != true,
        _ => false,
    };
    let pre_tokenizers = steps(&tokenizer["pre_tokenizer"], "pretokenizers");
    if let Some(step) = pre_tokenizers.into_iter().find(|step| !known(step)) {
        return Err(unsupported(&format!("a tokenizer with the pre-tokenizer {step}, which llama.cpp does not have")));
    }
    let model = &tokenizer["model"];
    let marked = |key: &&&str| model[**key].as_str().is_some_and(|mark| !mark.is_empty());
    match ["continuing_subword_prefix", "end_of_word_suffix"].iter().find(marked) {
        Some(key) => Err(unsupported(&format!("a tokenizer with {key} = {}", model[*key]))),
        None => Ok(()),
    }
}

/// The steps of a sequence, or the one step that stands alone.
fn steps<'t>(value: &'t Value, key: &str) -> Vec<&'t Value> {
    match (value.is_null(), value[key].as_array()) {
        (true, _) => vec![],
        (false, Some(steps)) => steps.iter().collect(),
        (false, None) => vec![value],
    }
}

/// llama.cpp's name of the way text is split.
pub fn split_name(tokenizer: &Value) -> Result<&'static str, ModelError> {
    let whole_words = tokenizer["model"]["ignore_merges"] == true;
    let steps = steps(&tokenizer["pre_tokenizer"], "pretokenizers");
    let byte_level = |step: &Value| step["type"] == "ByteLevel";
    let splits = |step: &Value| byte_level(step) && step["use_regex"] != false;
    let expression = steps.iter().find_map(|step| step["pattern"]["Regex"].as_str());
    let found = match (steps.as_slice(), expression) {
        ([one], None) if splits(one) => (!whole_words).then_some("gpt-2"),
        ([_], Some(expression)) | ([_, _], Some(expression)) if !steps.iter().any(|step| splits(step)) => {
            let known = SPLITS.iter().find(|(_, known, whole)| (*known, *whole) == (expression, whole_words));
            known.map(|(name, ..)| *name)
        }
        (_, None) => return Err(unsupported("a tokenizer that does not split text, which has no name there")),
        _ => return Err(unsupported("a tokenizer that splits text more than once, which has no name there")),
    };
    found.ok_or_else(|| {
        let by = expression.map_or("GPT-2's expression".into(), |expression| format!("{expression:?}"));
        let merges = if whole_words { ", without merges of words that are tokens" } else { "" };
        unsupported(&format!("a tokenizer that splits text by {by}{merges}, which has no name there"))
    })
}

/// Whether a space is put before the text.
pub fn prepends_space(tokenizer: &Value) -> bool {
    let scheme = tokenizer["pre_tokenizer"]["prepend_scheme"].as_str();
    let prepends = |step: &&Value| step["type"] == "Prepend";
    steps(&tokenizer["normalizer"], "normalizers").iter().any(prepends) || matches!(scheme, Some("first" | "always"))
}
