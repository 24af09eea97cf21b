//! Special tokens that cut a text into parts whose tokens do not depend on each other.
//!
//! A tokenizer takes added tokens out of a text before anything else, so
//! `encode(a + "<|im_start|>" + b) = encode(a) + encode("<|im_start|>" + b)`. A chat prompt is therefore
//! encoded once up to its last such token, whatever number of answers follow.

use tokenizers::AddedToken;

/// The added tokens among those a template writes that split a text cleanly.
pub(super) fn find(tokenizer: &tokenizers::Tokenizer, template: &str, special: &[&str]) -> Vec<String> {
    let added: Vec<AddedToken> = tokenizer.get_added_tokens_decoder().into_values().collect();
    let plain = |token: &AddedToken| {
        !(token.normalized || token.lstrip || token.rstrip || token.single_word || token.content.is_empty())
    };
    let mut barriers: Vec<String> = added
        .iter()
        .filter(|token| plain(token))
        .map(|token| token.content.as_str())
        .filter(|text| template.contains(text) || special.contains(text))
        .filter(|text| !added.iter().any(|other| other.content != *text && overlaps(&other.content, text)))
        .map(str::to_string)
        .collect();
    barriers.sort();
    barriers
}

/// Whether `other` can match from before the beginning of `text` into it.
fn overlaps(other: &str, text: &str) -> bool {
    other.contains(text) || other.char_indices().skip(1).any(|(start, _)| text.starts_with(&other[start..]))
}
