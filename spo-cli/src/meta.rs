//! `--meta`: what a policy is asked for, in words.

use clap::{Args, ValueEnum};
use spo_data::meta::{MetaLayout, MetaPlace, MetaPrompts, MetaRows};
use spo_data::{PromptText, TextSpec};

use crate::error::CliError;
use crate::output::note;

/// What counts in the answers.
#[derive(Debug, Args)]
pub(crate) struct MetaArguments {
    /// What counts in the answers, for a policy that was trained with meta-prompts: a dimension that it has texts for, or a text
    /// such as "Be honest above all."
    #[arg(long, value_name = "TEXT", help_heading = "Text")]
    pub meta: Option<String>,
    /// Where that text stands; without it as in the policy's run, or for a model that does not say in the system message
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
    text: Option<String>,
    place: MetaPlace,
    /// The texts that dimensions are asked for by.
    known: MetaPrompts,
}

impl MetaArguments {
    /// The text; `own` are the meta-prompts that the policy was trained with.
    ///
    /// # Errors
    /// A word that is no dimension of theirs.
    pub fn meta(&self, own: Option<&MetaPrompts>) -> Result<Meta, CliError> {
        let place = self.meta_place.map(|place| match place {
            Stands::System => MetaPlace::System,
            Stands::User => MetaPlace::User,
        });
        let known = own.cloned().unwrap_or_default();
        let mut meta = Meta { text: None, place: place.unwrap_or(known.place), known };
        meta.ask(self.meta.as_deref().unwrap_or_default())?;
        Ok(meta)
    }
}

impl Meta {
    /// Asks for a dimension by its name, or by a text; an empty one asks for nothing.
    ///
    /// # Errors
    /// A word that is none of the policy's dimensions: a text would be more than a name.
    pub fn ask(&mut self, asked: &str) -> Result<(), CliError> {
        let names = self.known.dimensions();
        let is_name = |asked: &str| asked.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_');
        self.text = match self.known.text_for(asked) {
            _ if asked.is_empty() => None,
            Some(text) => {
                note(format_args!("{asked}: {text}"));
                Some(text.to_owned())
            }
            None if is_name(asked) && !names.is_empty() => {
                let names = names.into_iter().collect::<Vec<_>>().join(", ");
                return Err(CliError::argument("--meta", asked, format!("a dimension ({names}) or a sentence")));
            }
            None => Some(asked.to_owned()),
        };
        Ok(())
    }

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

    /// The text as something that is done with rows; `system` is the message of those that have none.
    pub fn rows(&self, system: Option<&String>) -> Option<MetaPrompts> {
        let layout = MetaLayout { rows: MetaRows::Behind(self.text.clone()?), system: system.cloned(), seed: 0 };
        Some(MetaPrompts { place: self.place, layout, ..MetaPrompts::default() })
    }
}
