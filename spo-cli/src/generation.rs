//! What the commands that generate take: how to choose tokens, when to stop, how to run the model.

use std::path::Path;

use clap::{Args, ValueEnum};
use spo_data::Tokenizer;
use spo_model::CausalLm;
use spo_model::generate::{DecodeOptions, GenerateOptions, Generator, Path as Way, Sampling, WeightFormat};

use crate::error::CliError;
use crate::output::note;

/// How tokens are chosen and when an answer ends.
#[derive(Debug, Args)]
pub(crate) struct SamplingArguments {
    /// Most tokens to generate for a prompt
    #[arg(long, value_name = "N", default_value_t = 128, help_heading = "Sampling")]
    pub max_new_tokens: usize,
    /// 0 takes the most likely token each time; above, tokens are drawn
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = at_least_0, help_heading = "Sampling")]
    pub temperature: f64,
    /// Draw from this many of the most likely tokens; 0 = all
    #[arg(long, value_name = "K", default_value_t = 0, help_heading = "Sampling")]
    pub top_k: usize,
    /// Draw from the most likely tokens whose probabilities sum to this
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = share, help_heading = "Sampling")]
    pub top_p: f64,
    /// Draw from tokens at least this many times as likely as the most likely one; 0 = all
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = up_to_1, help_heading = "Sampling")]
    pub min_p: f64,
    /// Above 1, tokens of the prompt and the answer so far become less likely
    #[arg(long, value_name = "F", default_value_t = 1.0, value_parser = above_0, help_heading = "Sampling")]
    pub repetition_penalty: f64,
    /// Seed of the draws; each prompt has its own stream, whatever runs beside it
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = "Sampling")]
    pub seed: u64,
    /// End the answer before this text; may be repeated; \n is a line break
    #[arg(long, value_name = "TEXT", help_heading = "Sampling")]
    pub stop: Vec<String>,
    /// Go on after the end of the answer
    #[arg(long, help_heading = "Sampling")]
    pub ignore_eos: bool,
}

/// How the model runs.
#[derive(Debug, Args)]
pub(crate) struct DecodeArguments {
    /// Weights during generation on the CPU: f32 is as loaded, bf16 and q8 round them and may change tokens
    #[arg(long, value_enum, default_value_t = Weights::F32, help_heading = "Device")]
    pub weight_format: Weights,
    /// Most tokens that 8-bit weights guess ahead on the CPU, for one or two prompts at a time; the weights proper
    /// check them, so this changes speed and memory, never a token; 0 = none
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(0..=15), help_heading = "Device")]
    pub drafts: u8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Weights {
    F32,
    Bf16,
    Q8,
}

fn number(argument: &str) -> Result<f64, String> {
    argument.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| "expected a number".into())
}

fn at_least_0(argument: &str) -> Result<f64, String> {
    let value = number(argument)?;
    (value >= 0.0).then_some(value).ok_or_else(|| "expected a number of at least 0".into())
}

fn above_0(argument: &str) -> Result<f64, String> {
    let value = number(argument)?;
    (value > 0.0).then_some(value).ok_or_else(|| "expected a number above 0".into())
}

fn up_to_1(argument: &str) -> Result<f64, String> {
    let value = number(argument)?;
    (0.0..=1.0).contains(&value).then_some(value).ok_or_else(|| "expected a number from 0 to 1".into())
}

fn share(argument: &str) -> Result<f64, String> {
    let value = number(argument)?;
    (value > 0.0 && value <= 1.0).then_some(value).ok_or_else(|| "expected a number above 0, at most 1".into())
}

impl SamplingArguments {
    /// The options for a model with this tokenizer.
    pub fn options(&self, tokenizer: &Tokenizer) -> GenerateOptions {
        let stop = if self.ignore_eos { vec![] } else { tokenizer.terminators().to_vec() };
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
        };
        GenerateOptions { max_new_tokens: self.max_new_tokens, sampling, seed: self.seed, first_stream: 0, stop }
    }

    /// The texts that end an answer.
    pub fn stop_texts(&self, tokenizer: &Tokenizer) -> Result<Vec<String>, CliError> {
        if !self.stop.is_empty() && tokenizer.vocabulary_size() == 0 {
            return Err(CliError::argument("--stop", "a text", "none, as the model has no tokenizer"));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(CliError::argument("--stop", "an empty text", "a text"));
        }
        Ok(self.stop.iter().map(|stop| stop.replace("\\n", "\n")).collect())
    }
}

impl DecodeArguments {
    /// Makes a model ready, and says so where the CPU's kernels do not know it.
    pub fn generator(&self, model: CausalLm, name: &Path, batch: usize) -> Generator {
        let weights = match self.weight_format {
            Weights::F32 => WeightFormat::F32,
            Weights::Bf16 => WeightFormat::Bf16,
            Weights::Q8 => WeightFormat::Q8,
        };
        let generator = Generator::new(model, &DecodeOptions { batch, weights, drafts: self.drafts.into() });
        tracing::info!(model = %name.display(), path = %generator.path(), "ready to generate");
        if let Way::Tensors { reason: Some(_) } = generator.path() {
            note(format_args!("{}: {}; slower, and --weight-format has no effect", name.display(), generator.path()));
        }
        generator
    }
}
