//! `spo generate`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use spo_data::{PromptText, encode_prompt};
use spo_model::generate::{Control, DecodeOptions, GenerateOptions, Generator, Sampling};

use crate::error::CliError;
use crate::inputs::{DeviceArguments, TextArguments, model_tokenizer};
use crate::output::Output;

/// Continue a prompt
///
/// JSON keys: ids (the new tokens, the one that ended the answer included), text (without special tokens; null where
/// the model has no tokenizer).
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["prompt", "ids"]))]
pub(crate) struct Arguments {
    /// Model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Adapter directory in PEFT's format
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// The prompt as text, laid out as in training: by the chat template, or by --prompt-format
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// The prompt as token ids, taken as they are
    #[arg(long, value_delimiter = ',', value_name = "1,2,3")]
    ids: Option<Vec<u32>>,
    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// 0 takes the most likely token each time; above, tokens are drawn
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = temperature)]
    temperature: f64,
    /// Draw from this many of the most likely tokens; 0 = all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Draw from the most likely tokens whose probabilities sum to this
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = share)]
    top_p: f64,
    /// Seed of the draws
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Go on after the end of the answer
    #[arg(long)]
    ignore_eos: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    text: TextArguments,
}

fn temperature(argument: &str) -> Result<f64, String> {
    let value: f64 = argument.parse().map_err(|_| "expected a number")?;
    (value.is_finite() && value >= 0.0).then_some(value).ok_or_else(|| "expected a number of at least 0".into())
}

fn share(argument: &str) -> Result<f64, String> {
    let value: f64 = argument.parse().map_err(|_| "expected a number")?;
    (value > 0.0 && value <= 1.0).then_some(value).ok_or_else(|| "expected a number above 0, at most 1".into())
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let device = self.device.open()?;
        let tokenizer = model_tokenizer(&self.model)?;
        let prompt = match (&self.ids, &self.prompt) {
            (Some(ids), _) => ids.clone(),
            (None, text) => {
                let text = PromptText::Text(text.clone().unwrap_or_default());
                encode_prompt(&tokenizer, &self.text.spec(), &text)?
            }
        };
        if prompt.is_empty() {
            return Err(CliError::argument("--prompt", "no token", "at least one token"));
        }
        let model = self.device.load(&device, &self.model, self.adapter.as_deref())?;
        let context = model.spec().context;
        if prompt.len() >= context {
            return Err(CliError::PromptTooLong { found: prompt.len(), context });
        }
        model.spec().check_row("the prompt", &prompt, &[])?;
        let mut stop = vec![];
        if !self.ignore_eos {
            stop.extend(&model.spec().eos);
            stop.extend(tokenizer.terminators());
        }
        let sampling =
            Sampling { temperature: self.temperature, top_k: self.top_k, top_p: self.top_p, ..Sampling::GREEDY };
        let options = GenerateOptions { max_new_tokens: self.max_new_tokens, sampling, seed: self.seed, stop };
        let mut generator = Generator::new(model, &DecodeOptions::default());
        let ids = generator.generate(&[&prompt], &options, &mut |_, _| Control::Continue).remove(0).ids;
        let text = match tokenizer.vocabulary_size() {
            0 => None,
            _ => Some(tokenizer.decode(&ids)?),
        };
        if self.json {
            return output.json(&json!({ "ids": ids, "text": text }));
        }
        output.line(text.unwrap_or_else(|| {
            let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
            ids.join(",")
        }))
    }
}
