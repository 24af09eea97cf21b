//! Tokenizers and chat templates as Hugging Face stores them.

mod barrier;
mod files;
mod gguf;
mod jinja;
mod template;
mod time;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::DataError;
use files::{SpecialTokens, bad_file};
pub use template::{ChatTemplate, RenderOptions};

/// A tokenizer with its special tokens and chat template.
///
/// ```no_run
/// let tokenizer = spo_data::Tokenizer::from_dir(std::path::Path::new("my-model"))?;
/// let ids = tokenizer.encode("Hello world", true)?;
/// assert_eq!(tokenizer.decode(&ids)?, "Hello world");
/// # Ok::<(), spo_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tokenizer {
    /// Absent for models whose data are token ids.
    inner: Option<Arc<tokenizers::Tokenizer>>,
    special: SpecialTokens,
    template: Option<ChatTemplate>,
    barriers: Vec<String>,
    files: BTreeMap<String, Vec<u8>>,
    fingerprint: String,
}

/// A token with its text and place, for display.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TokenSpan {
    /// Token id.
    pub id: u32,
    /// The token as the vocabulary spells it.
    pub token: String,
    /// Byte range of the token in the text.
    pub offsets: (usize, usize),
}

/// The tokenizer of these files that was built last, if it was of the same ones. Its library keeps what it has tokenised per
/// thread and tokenizer, and never gives that back: a program that opens the same tokenizer again and again would grow.
fn built_before(fingerprint: &str, inner: tokenizers::Tokenizer) -> Arc<tokenizers::Tokenizer> {
    static LAST: Mutex<Option<(String, Arc<tokenizers::Tokenizer>)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some((of, built)) if of == fingerprint => built.clone(),
        _ => last.insert((fingerprint.to_owned(), Arc::new(inner))).1.clone(),
    }
}

impl Tokenizer {
    /// Reads a model or tokenizer directory: `tokenizer.json`, or `vocab.json` with `merges.txt`; beside it
    /// `tokenizer_config.json`, `special_tokens_map.json`, `chat_template.jinja` and `generation_config.json`.
    ///
    /// # Errors
    /// When no tokenizer is there, a file is unreadable or broken.
    pub fn from_dir(directory: &Path) -> Result<Self, DataError> {
        Self::from_files(files::read_directory(directory)?)
    }

    /// Builds a tokenizer from the bytes of its files; an empty `tokenizer_config_json` means none.
    ///
    /// # Errors
    /// When a file is broken.
    pub fn from_bytes(
        tokenizer_json: &[u8],
        tokenizer_config_json: &[u8],
        chat_template: Option<&str>,
    ) -> Result<Self, DataError> {
        let mut files = BTreeMap::from([(files::TOKENIZER.to_string(), tokenizer_json.to_vec())]);
        if !tokenizer_config_json.is_empty() {
            files.insert(files::CONFIG.to_string(), tokenizer_config_json.to_vec());
        }
        if let Some(template) = chat_template {
            files.insert(files::TEMPLATE.to_string(), template.as_bytes().to_vec());
        }
        Self::from_files(files)
    }

    /// Stands in where a model has no tokenizer: only rows of token ids can be loaded, text is an error.
    pub fn ids_only() -> Self {
        Self {
            inner: None,
            special: SpecialTokens::default(),
            template: None,
            barriers: Vec::new(),
            files: BTreeMap::new(),
            fingerprint: "ids-only".to_string(),
        }
    }

    fn inner(&self) -> Result<&tokenizers::Tokenizer, DataError> {
        self.inner.as_deref().ok_or(DataError::IdsOnly)
    }

    fn from_files(files: BTreeMap<String, Vec<u8>>) -> Result<Self, DataError> {
        let mut inner = files::build(&files)?;
        // Lengths are decided here, never by settings left in tokenizer.json.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| bad_file(files::TOKENIZER, error))?;
        let special = SpecialTokens::read(&files, &inner)?;
        let template = files::chat_template(&files)?
            .map(|source| ChatTemplate::new(&source, special.names.clone()))
            .transpose()?;
        let source = template.as_ref().map_or("", ChatTemplate::source);
        let names: Vec<&str> = special.names.values().map(String::as_str).collect();
        let barriers = barrier::find(&inner, source, &names);
        let mut hasher = blake3::Hasher::new_derive_key("spo-data tokenizer v1");
        for (name, bytes) in &files {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        let fingerprint = hasher.finalize().to_hex()[..32].to_string();
        let inner = Some(built_before(&fingerprint, inner));
        Ok(Self { inner, special, template, barriers, files, fingerprint })
    }

    /// Token ids of a text. Special tokens written in the text are recognised; `add_special` lets the
    /// tokenizer add its own (BOS) around it.
    ///
    /// # Errors
    /// When the tokenizer fails, as with a word outside a vocabulary that has no unknown token.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, DataError> {
        let encoding = self.inner()?.encode_fast(text, add_special).map_err(encode_error)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens of a text with their spelling and byte offsets.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_spans(&self, text: &str, add_special: bool) -> Result<Vec<TokenSpan>, DataError> {
        let encoding = self.inner()?.encode(text, add_special).map_err(encode_error)?;
        let tokens = encoding.get_tokens().iter().zip(encoding.get_offsets());
        Ok(encoding
            .get_ids()
            .iter()
            .zip(tokens)
            .map(|(id, (token, offsets))| TokenSpan { id: *id, token: token.clone(), offsets: *offsets })
            .collect())
    }

    /// Text of token ids, without special tokens.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        self.inner()?.decode(ids, true).map_err(encode_error)
    }

    /// Text of token ids, special tokens spelled out.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode_with_special(&self, ids: &[u32]) -> Result<String, DataError> {
        self.inner()?.decode(ids, false).map_err(encode_error)
    }

    /// The last place where a text can be cut and both parts encoded alone, without added special tokens,
    /// to the same tokens: the beginning of a special token, or 0.
    pub(crate) fn last_barrier(&self, text: &str) -> usize {
        self.barriers.iter().filter_map(|barrier| text.rfind(barrier.as_str())).max().unwrap_or(0)
    }

    /// The beginning-of-sequence token.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The token appended to answers in the plain layout.
    pub fn eos(&self) -> Option<u32> {
        self.special.terminators.first().copied()
    }

    /// Every token that ends an answer: the tokenizer's EOS first, then those of `generation_config.json`.
    pub fn terminators(&self) -> &[u32] {
        &self.special.terminators
    }

    /// The chat template, if the tokenizer has one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Number of tokens, added ones included; 0 without a tokenizer.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.as_ref().map_or(0, |inner| inner.get_vocab_size(true))
    }

    /// Id of a token by its spelling.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.as_ref()?.token_to_id(token)
    }

    /// Hash of all tokenizer files, 32 hexadecimal digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The files to copy beside an exported model, by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }
}

fn encode_error(error: tokenizers::Error) -> DataError {
    DataError::Encode { message: error.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_are_one_tokenizer_of_the_library() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spo-cli/assets/stories260K");
        let [first, second] = [&directory; 2].map(|directory| Tokenizer::from_dir(directory).unwrap());
        assert!(Arc::ptr_eq(first.inner.as_ref().unwrap(), second.inner.as_ref().unwrap()));
        let mut files = first.files.clone();
        files.remove(files::CONFIG);
        let other = Tokenizer::from_files(files).unwrap();
        assert!(!Arc::ptr_eq(first.inner.as_ref().unwrap(), other.inner.as_ref().unwrap()));
    }
}
