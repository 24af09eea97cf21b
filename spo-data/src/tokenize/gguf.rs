//! The tokenizer of a GGUF file.

use std::path::Path;

use super::Tokenizer;
use crate::DataError;
use crate::gguf::{Gguf, is_gguf, tokenizer_files};

const KIND: &str = "tokenizer.ggml.model";
const EOS: &str = "tokenizer.ggml.eos_token_id";

impl Tokenizer {
    /// Reads the tokenizer of a model: a GGUF file, or a directory as [`from_dir`](Self::from_dir) takes it.
    ///
    /// # Errors
    /// When no tokenizer is there, a file is unreadable or broken, or its kind is not known.
    pub fn from_path(path: &Path) -> Result<Self, DataError> {
        if !is_gguf(path) {
            return Self::from_dir(path);
        }
        let file = Gguf::open(path)?;
        let files = tokenizer_files(&file)?;
        if files.is_empty() {
            let reason = file.expected(KIND, "gpt2 or llama").reason;
            let message = format!(
                "no tokenizer in the file: key `{KIND}`: {reason}; the model's Hugging Face directory has one, or rows of \
                 token ids need none"
            );
            return Err(DataError::NoTokenizer { path: path.into(), message });
        }
        let in_file = |file: String| format!("{}: {file} made of its tokenizer", path.display());
        Self::from_files(files).map_err(|error| match error {
            DataError::BadTokenizer { file, message } => DataError::BadTokenizer { file: in_file(file), message },
            other => other,
        })
    }
}

/// The id that ends an answer, of a file without a tokenizer.
pub(super) fn ends(path: &Path) -> Result<Vec<u32>, DataError> {
    let file = Gguf::open(path)?;
    let eos = file.count(EOS)?.map(|id| u32::try_from(id).map_err(|_| file.expected(EOS, "a token id")));
    Ok(eos.transpose()?.into_iter().collect())
}
