//! `spo tokenize`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use spo_data::{TokenSpan, Tokenizer};

use crate::error::CliError;
use crate::hub;
use crate::output::Output;

/// Show the tokens of a text
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Tokenizer or model directory, or GGUF file
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// The text
    #[arg(long, value_name = "TEXT")]
    text: String,
    /// Leave out the special tokens that the tokenizer adds by itself, such as BOS
    #[arg(long)]
    no_special: bool,
    /// One JSON object: ids, tokens, offsets (byte ranges in the text)
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let tokenizer = Tokenizer::from_path(&hub::tokenizer(&self.tokenizer)?)?;
        let spans = tokenizer.encode_spans(&self.text, !self.no_special)?;
        if self.json {
            let list = |value: fn(&TokenSpan) -> serde_json::Value| spans.iter().map(value).collect::<Vec<_>>();
            return output.json(&json!({
                "ids": list(|span| span.id.into()),
                "tokens": list(|span| span.token.as_str().into()),
                "offsets": list(|span| json!([span.offsets.0, span.offsets.1])),
            }));
        }
        for TokenSpan { id, token, offsets: (start, end) } in &spans {
            output.line(format_args!("{id:>8}  {start:>6}..{end:<6}  {token:?}"))?;
        }
        output.line(format_args!("{} tokens", spans.len()))
    }
}
