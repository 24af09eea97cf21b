//! What a row looks like to the model, with the part that is trained.

use crate::{DataError, Example, Tokenizer};

/// A stretch of text that is trained on, or not.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Segment {
    /// The text, special tokens spelled out.
    pub text: String,
    /// Token ids.
    pub ids: Vec<u32>,
    /// Whether these tokens are scored.
    pub supervised: bool,
}

impl Example {
    /// Prompt and one answer as text; an index out of range previews an empty answer.
    ///
    /// # Errors
    /// When the tokenizer cannot decode the ids.
    pub fn preview(&self, tokenizer: &Tokenizer, answer: usize) -> Result<[Segment; 2], DataError> {
        let answer = self.answers.get(answer).map_or(&[][..], |ids| ids);
        let prompt = tokenizer.decode_with_special(&self.prompt)?;
        let whole = tokenizer.decode_with_special(&[&self.prompt, answer].concat())?;
        // Decoders drop a leading space, so an answer decoded alone may lose one.
        let text = match whole.strip_prefix(&prompt) {
            Some(text) => text.to_string(),
            None => tokenizer.decode_with_special(answer)?,
        };
        Ok([
            Segment { text: prompt, ids: self.prompt.to_vec(), supervised: false },
            Segment { text, ids: answer.to_vec(), supervised: true },
        ])
    }
}
