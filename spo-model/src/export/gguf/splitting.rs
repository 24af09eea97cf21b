//! How a `tokenizer.json` treats text before the merges, in llama.cpp's terms: it knows few ways, each by a name.

use crate::ModelError;
use crate::gguf::unsupported;
use serde_json::{Value, json};
use spo_data::gguf::{SPLITS, Steps, Unnamed};

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
        Some("Digits") => !sentence_piece && step["individual_digits"] == true,
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
    let steps = Steps::of_json(tokenizer);
    let known = |steps: Steps| SPLITS.iter().find(|split| (split.steps, split.whole_words) == (steps, whole_words));
    if let Some(split) = steps.ok().and_then(known) {
        return Ok(split.names[0]);
    }
    let by = match steps {
        Err(Unnamed::No) => return Err(unsupported("a tokenizer that does not split text, which has no name there")),
        Err(Unnamed::Steps) => {
            return Err(unsupported("a tokenizer that splits text more than once, which has no name there"));
        }
        Err(Unnamed::Expression(expression)) | Ok(Steps::Regex(expression)) => format!("{expression:?}"),
        Ok(Steps::Gpt2 | Steps::DigitsGpt2) => "GPT-2's expression".into(),
    };
    let merges = if whole_words { ", without merges of words that are tokens" } else { "" };
    Err(unsupported(&format!("a tokenizer that splits text by {by}{merges}, which has no name there")))
}

/// Whether a space is put before the text.
pub fn prepends_space(tokenizer: &Value) -> bool {
    let scheme = tokenizer["pre_tokenizer"]["prepend_scheme"].as_str();
    let prepends = |step: &&Value| step["type"] == "Prepend";
    steps(&tokenizer["normalizer"], "normalizers").iter().any(prepends) || matches!(scheme, Some("first" | "always"))
}
