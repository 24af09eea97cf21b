//! `spo render`

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use spo_data::{Message, RenderOptions, Tokenizer};

use crate::error::CliError;
use crate::hub;
use crate::output::Output;

/// Render messages with a tokenizer's chat template, as transformers does
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Tokenizer or model directory, or GGUF file
    #[arg(long, value_name = "DIR")]
    tokenizer: PathBuf,
    /// JSON file: a list of messages, or an object with messages, tools and chat_template_kwargs
    #[arg(long, value_name = "FILE")]
    messages: PathBuf,
    /// Append the opening of an assistant turn
    #[arg(long)]
    add_generation_prompt: bool,
    /// One JSON object: text, generation (byte ranges of the template's generation blocks)
    #[arg(long)]
    json: bool,
}

/// What the file may hold.
#[derive(Deserialize)]
#[serde(untagged)]
enum Conversation {
    Messages(Vec<Message>),
    Full {
        messages: Vec<Message>,
        #[serde(default)]
        tools: Option<Value>,
        #[serde(default)]
        chat_template_kwargs: Map<String, Value>,
    },
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let tokenizer = Tokenizer::from_path(&hub::tokenizer(&self.tokenizer)?)?;
        let (messages, tools, variables) = match self.read()? {
            Conversation::Messages(messages) => (messages, None, Map::new()),
            Conversation::Full { messages, tools, chat_template_kwargs } => (messages, tools, chat_template_kwargs),
        };
        let template = tokenizer.template_for(tools.is_some())?.ok_or(spo_data::DataError::NoTemplate)?;
        let options = RenderOptions {
            add_generation_prompt: self.add_generation_prompt,
            tools: tools.as_ref(),
            variables: Some(&variables),
        };
        let (text, spans) = template.render_spans(&messages, &options)?;
        if self.json {
            let spans: Vec<Value> = spans.iter().map(|span| json!([span.start, span.end])).collect();
            return output.json(&json!({ "text": text, "generation": spans }));
        }
        output.line(text)
    }

    fn read(&self) -> Result<Conversation, CliError> {
        let text = std::fs::read_to_string(&self.messages).map_err(|source| CliError::io(&self.messages, source))?;
        let unexpected = |found: String| CliError::Unexpected {
            at: self.messages.display().to_string(),
            found,
            expected: "a JSON list of messages, each with a role and content, or an object with the key messages"
                .into(),
            usage: false,
        };
        let value: Value = serde_json::from_str(&text).map_err(|error| unexpected(format!("invalid JSON: {error}")))?;
        serde_json::from_value(value).map_err(|_| unexpected("other JSON".into()))
    }
}
