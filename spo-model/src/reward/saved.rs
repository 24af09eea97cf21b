//! Which token a fresh score head reads.

use super::Pooling;
use crate::ModelError;
use crate::load::ModelFiles;
use serde_json::Value;
use spo_data::Tokenizer;

impl ModelFiles {
    /// Which token a fresh score head on this model reads: the last one that is not the padding token of `config.json`, or
    /// else the tokenizer's, or else its EOS, as TRL chooses it; then the token before the end of a text is read.
    ///
    /// # Errors
    /// The tokenizer or the configuration is broken.
    pub fn pooling(&self) -> Result<Pooling, ModelError> {
        let config: Value = self
            .get("config.json")
            .map_or(Ok(Value::Null), serde_json::from_slice)
            .map_err(|e| ModelError::Json { file: "config.json".into(), reason: e.to_string() })?;
        let named = |key: &str| config[key].as_u64().and_then(|id| u32::try_from(id).ok());
        let mut pad = named("pad_token_id");
        if pad.is_none() && ["tokenizer.json", "vocab.json"].iter().any(|name| self.get(name).is_some()) {
            let tokenizer = Tokenizer::from_files(self.by_name())?;
            pad = tokenizer.special().pad.or_else(|| tokenizer.eos());
        }
        Ok(pad.or_else(|| named("eos_token_id")).map_or(Pooling::Last, Pooling::BeforePads))
    }
}
