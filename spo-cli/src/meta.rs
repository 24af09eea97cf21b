//! `--meta`: what a policy is asked for, in words.

use clap::{Args, ValueEnum};
use spo_data::meta::MetaPlace;
use spo_data::{PromptText, TextSpec};

use crate::error::CliError;

/// What counts in the answers.
#[derive(Debug, Args)]
pub(crate) struct MetaArguments {
    /// What counts in the answers, for a policy that was trained with meta-prompts: "Be honest above all."
    #[arg(long, value_name = "TEXT", help_heading = "Text")]
    meta: Option<String>,
    /// Where that text stands; without it as in the run, or for a model that no run names in the system message
    #[arg(long, value_enum, value_name = "PLACE", requires = "meta", help_heading = "Text")]
    meta_place: Option<Stands>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stands {
    /// In the system message, below what stands there already
    System,
    /// At the beginning of the user's first turn
    User,
}

/// A text before every prompt, or none.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    pub text: Option<String>,
    place: MetaPlace,
}

impl MetaArguments {
    /// The text; `run` is where that of a policy's run stands.
    pub fn meta(&self, run: Option<MetaPlace>) -> Meta {
        let place = self.meta_place.map(|place| match place {
            Stands::System => MetaPlace::System,
            Stands::User => MetaPlace::User,
        });
        Meta { text: self.meta.clone(), place: place.or(run).unwrap_or_default() }
    }
}

impl Meta {
    /// The prompt with the text, and how it is laid out.
    ///
    /// # Errors
    /// The prompt is token ids.
    pub fn on(&self, prompt: PromptText, layout: &TextSpec) -> Result<(PromptText, TextSpec), CliError> {
        let Some(text) = &self.text else { return Ok((prompt, layout.clone())) };
        if matches!(prompt, PromptText::Ids(_)) {
            return Err(CliError::argument("--meta", "a prompt of token ids", "prompts that are text"));
        }
        let (prompt, system) = self.place.put(text, prompt, layout.system.clone());
        Ok((prompt, TextSpec { system, ..layout.clone() }))
    }
}
