//! The tokenizer of a GGUF file.

use std::path::Path;

use super::Tokenizer;
use crate::DataError;
use crate::gguf::{Gguf, is_gguf, tokenizer_files};

impl Tokenizer {
    /// Reads the tokenizer of a model: a GGUF file, or a directory as [`from_dir`](Self::from_dir) takes it.
    ///
    /// # Errors
    /// When no tokenizer is there, a file is unreadable or broken, or its kind is not known.
    pub fn from_path(path: &Path) -> Result<Self, DataError> {
        if !is_gguf(path) {
            return Self::from_dir(path);
        }
        let files = tokenizer_files(&Gguf::open(path)?)?;
        if files.is_empty() {
            let message = "no tokenizer in the file: found no key `tokenizer.ggml.model`, expected gpt2 or llama; the model's \
                           Hugging Face directory has one, or rows of token ids need none";
            return Err(DataError::NoTokenizer { path: path.into(), message: message.into() });
        }
        let in_file = |file: String| format!("{}: {file} made of its tokenizer", path.display());
        Self::from_files(files).map_err(|error| match error {
            DataError::BadTokenizer { file, message } => DataError::BadTokenizer { file: in_file(file), message },
            other => other,
        })
    }
}
