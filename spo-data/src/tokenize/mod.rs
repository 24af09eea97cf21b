//! Tokenizers and chat templates as Hugging Face stores them.

mod barrier;
mod files;
mod gguf;
mod jinja;
mod settings;
mod template;
mod time;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::DataError;
use files::bad_file;
pub use files::template_files;
use settings::Templates;
pub use settings::{SpecialTokens, TokenizerSettings};
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
    settings: Arc<TokenizerSettings>,
    special: SpecialTokens,
    templates: Templates,
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

    /// The tokenizer of a model: [`from_path`](Self::from_path), or [`ids_only`](Self::ids_only) where there is none.
    ///
    /// # Errors
    /// As [`from_path`](Self::from_path), of a tokenizer that is there in a form that is not read, too.
    pub fn of_model(model: &Path) -> Result<Self, DataError> {
        match Self::from_path(model) {
            Err(DataError::NoTokenizer { .. }) if model.is_dir() && !files::has_sentencepiece(model) => {
                Ok(Self::ids_only(files::settings(&files::read_with(&[], model)?)?.ends))
            }
            Err(DataError::NoTokenizer { .. }) if model.is_file() => Ok(Self::ids_only(gguf::ends(model)?)),
            other => other,
        }
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

    /// Stands in where a model has no tokenizer: only rows of token ids can be loaded, text is an error. `ends` are the
    /// ids that end an answer.
    pub fn ids_only(ends: Vec<u32>) -> Self {
        Self {
            inner: None,
            settings: Arc::default(),
            special: SpecialTokens { ends, ..SpecialTokens::default() },
            templates: Templates::new(),
            barriers: Vec::new(),
            files: BTreeMap::new(),
            fingerprint: "ids-only".to_string(),
        }
    }

    fn inner(&self) -> Result<&tokenizers::Tokenizer, DataError> {
        self.inner.as_deref().ok_or(DataError::IdsOnly)
    }

    /// Builds a tokenizer from the files of a model directory by name.
    ///
    /// # Errors
    /// When a file is broken, or none holds a vocabulary.
    pub fn from_files(files: BTreeMap<String, Vec<u8>>) -> Result<Self, DataError> {
        Self::new(files::build(&files)?, files::settings(&files)?, files::kept(files))
    }

    /// A tokenizer of a vocabulary and what stands beside it, wherever they come from; `files` are those that
    /// [`files`](Self::files) gives back.
    ///
    /// # Errors
    /// [`DataError::NoSuchToken`] where BOS, EOS or an id that ends an answer is not in the vocabulary; a template that does
    /// not parse.
    pub fn new(
        mut vocabulary: tokenizers::Tokenizer,
        settings: TokenizerSettings,
        files: BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, DataError> {
        // Lengths are decided here, never by settings left in tokenizer.json.
        vocabulary.with_padding(None);
        vocabulary.with_truncation(None).map_err(|error| bad_file(files::TOKENIZER, error))?;
        let templates = settings.compile()?;
        let special = settings.resolve(&vocabulary, &templates)?;
        let sources: String = settings.templates.values().map(String::as_str).collect();
        let names: Vec<&str> = settings.special.values().map(String::as_str).collect();
        let barriers = barrier::find(&vocabulary, &sources, &names);
        let fingerprint = match files.is_empty() {
            false => fingerprint(&files, &special),
            true => fingerprint(&settings::written(&vocabulary, &settings)?, &special),
        };
        let inner = Some(built_before(&fingerprint, vocabulary));
        Ok(Self { inner, settings: Arc::new(settings), special, templates, barriers, files, fingerprint })
    }

    /// Token ids of a text. Special tokens written in the text are recognised; with `add_special` the tokens that the
    /// settings put before and after a text (BOS, EOS) are around it.
    ///
    /// # Errors
    /// When the tokenizer fails, as with a word outside a vocabulary that has no unknown token.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, DataError> {
        let mut ids = self.encode_open(text, add_special)?;
        if add_special {
            ids.extend(&self.special.after);
        }
        Ok(ids)
    }

    /// Token ids of a text that goes on: as [`encode`](Self::encode), without what would end it.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_open(&self, text: &str, add_special: bool) -> Result<Vec<u32>, DataError> {
        let encoding = self.inner()?.encode_fast(text, false).map_err(encode_error)?;
        let before = if add_special { self.special.before.as_slice() } else { &[] };
        Ok([before, encoding.get_ids()].concat())
    }

    /// Tokens of a text with their spelling and byte offsets.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_spans(&self, text: &str, add_special: bool) -> Result<Vec<TokenSpan>, DataError> {
        let inner = self.inner()?;
        let encoding = inner.encode(text, false).map_err(encode_error)?;
        let tokens = encoding.get_tokens().iter().zip(encoding.get_offsets());
        let spans = encoding.get_ids().iter().zip(tokens);
        let spans = spans.map(|(id, (token, offsets))| TokenSpan { id: *id, token: token.clone(), offsets: *offsets });
        if !add_special {
            return Ok(spans.collect());
        }
        let written =
            |id: &u32| TokenSpan { id: *id, token: inner.id_to_token(*id).unwrap_or_default(), offsets: (0, 0) };
        let (before, after) = (self.special.before.iter().map(written), self.special.after.iter().map(written));
        Ok(before.chain(spans).chain(after).collect())
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

    /// The tokens that begin and end texts.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// What stands beside the vocabulary, as it was read.
    pub fn settings(&self) -> &TokenizerSettings {
        &self.settings
    }

    /// The beginning-of-sequence token.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// The token appended to answers in the plain layout.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// Every token that ends an answer: [`SpecialTokens::ends`].
    pub fn terminators(&self) -> &[u32] {
        &self.special.ends
    }

    /// The chat template of conversations without tools, if there is one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template_for(false).ok().flatten()
    }

    /// The chat template for conversations with or without tools: as in transformers the one called `tool_use` for those
    /// with tools, where there is one, else the one called `default`. `None` if the model has no template at all.
    ///
    /// # Errors
    /// [`DataError::NoDefaultTemplate`] where all templates have other names.
    pub fn template_for(&self, tools: bool) -> Result<Option<&ChatTemplate>, DataError> {
        settings::choose(&self.templates, tools)
    }

    /// Number of tokens, added ones included; 0 without a tokenizer.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.as_ref().map_or(0, |inner| inner.get_vocab_size(true))
    }

    /// Id of a token by its spelling.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.as_ref()?.token_to_id(token)
    }

    /// Hash of all tokenizer files and settings, 32 hexadecimal digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The files to copy beside an exported model, by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }
}

/// Hash of what a tokenizer is made from, 32 hexadecimal digits.
fn fingerprint(sources: &BTreeMap<String, Vec<u8>>, special: &SpecialTokens) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("spo-data tokenizer v2");
    for (name, bytes) in sources {
        for part in [name.as_bytes(), bytes] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    // The model's configuration has a say in these, and is no file of the tokenizer.
    for id in &special.ends {
        hasher.update(&id.to_le_bytes());
    }
    hasher.finalize().to_hex()[..32].to_string()
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
