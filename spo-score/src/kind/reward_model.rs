//! A reward model: a checkpoint with a score head, which reads prompt and answer and gives one number.

use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use spo_data::{DataError, Group, RenderOptions, TextSpec, Tokenizer};
use spo_model::device;
use spo_model::export::Manifest;
use spo_model::reward::{Critic, RewardModel};
use std::path::PathBuf;

use crate::entry::{Entry, OpenError, decoded};
use crate::item::{Ids, in_chunks};
use crate::{Item, ScoreError, Scorer, Scores, Watch};

/// Its name.
const NAME: &str = "reward-model";

pub(crate) const ENTRY: Entry = Entry {
    name: NAME,
    summary: "a reward model's directory: ...ForSequenceClassification, OpenRLHF's, or a value head beside a language model",
    example: "reward-model:DIR",
    options: || schema_for!(Options),
    argument: Some("path"),
    check: |options| {
        let options: Options = decoded(options)?;
        match options.max_critique_tokens {
            0 => Err(OpenError::Options("max-critique-tokens is 0, expected at least 1".into())),
            _ => Ok(()),
        }
    },
    open: |options, opening, _| {
        let mut options: Options = decoded(options)?;
        if let Some(directory) = &opening.directory {
            options.path = directory.join(&options.path);
        }
        let failed = |error: spo_model::ModelError| {
            let reason = error.hint().map_or_else(|| error.to_string(), |hint| format!("{error} ({hint})"));
            ScoreError::Model { name: options.path.display().to_string(), source: reason.into() }
        };
        let device = device::open(&options.device).map_err(failed)?;
        let mut model = RewardModel::open(&options.path, None, options.label, &device).map_err(failed)?;
        // Rows of token ids need none.
        let tokenizer = Tokenizer::from_path(&options.path);
        if options.critique {
            let tokenizer = tokenizer.as_ref().map_err(|error| OpenError::Options(error.to_string()))?;
            let critic = Critic::new(tokenizer, options.max_critique_tokens).map_err(ScoreError::from)?;
            model.set_critic(&options.path, critic).map_err(failed)?;
        }
        let tokenizer = tokenizer.ok();
        let text = Manifest::text_of(&options.path).map_err(failed)?;
        let (path, budget) = (options.path, options.tokens_per_micro_batch);
        Ok(Box::new(Rewards { kind: NAME, path, budget, model, tokenizer, text }))
    },
};

/// Options of `reward-model`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// The model's directory, with its tokenizer.
    path: PathBuf,
    /// Which of the head's scores is the reward, counted from 0; where there is one it need not be said.
    #[serde(default)]
    label: Option<usize>,
    /// Whether the model first writes a critique of the answer and is read behind it: for models trained with
    /// `critique = true`.
    #[serde(default)]
    critique: bool,
    /// Most tokens of such a critique.
    #[serde(default = "critique_tokens")]
    max_critique_tokens: usize,
    /// Where it runs: `auto`, `cpu`, or a device of `spo list devices`.
    #[serde(default = "auto")]
    device: String,
    /// Most tokens computed at once.
    #[serde(default = "tokens")]
    tokens_per_micro_batch: usize,
}

fn critique_tokens() -> usize {
    256
}

pub(super) fn auto() -> String {
    "auto".into()
}

pub(super) fn tokens() -> usize {
    4096
}

/// A reward model that scores, of this kind.
pub(super) struct Rewards {
    pub kind: &'static str,
    /// Its directory.
    pub path: PathBuf,
    /// Most tokens computed at once.
    pub budget: usize,
    pub model: RewardModel,
    /// Its own; a directory without one scores rows of token ids only.
    pub tokenizer: Option<Tokenizer>,
    /// How it was trained to see text, where a run of this program made it.
    pub text: Option<TextSpec>,
}

impl Rewards {
    /// Prompt and answer as the reward model's own tokens: text as its template lays it out, a row of token ids as it is.
    fn ids(&self, item: &Item) -> Result<Option<Ids>, ScoreError> {
        if item.require_text(self.kind).is_err() {
            return Ok(Some(Ids { prompt: item.prompt_ids.clone(), answer: item.response_ids.clone() }));
        }
        let tokenizer = self.tokenizer.as_ref().ok_or_else(|| ScoreError::Model {
            name: self.path.display().to_string(),
            source: "it has no tokenizer that can be read, and scores rows of token ids only".into(),
        })?;
        match &self.text {
            Some(text) => Ids::of_text(item, tokenizer, text),
            None if item.response.trim().is_empty() => Ok(None),
            None => by_template(tokenizer, item).map(Some),
        }
    }

    fn scored(&self, rows: &[(usize, Vec<u32>, Vec<u32>)], items: &[Item]) -> Result<Vec<f64>, ScoreError> {
        for (index, prompt, answer) in rows {
            let fits = self.model.model.spec().check_row(&items[*index].id, prompt, &[answer]);
            let name = self.path.display().to_string();
            fits.map_err(|error| ScoreError::Model { name, source: error.into() })?;
        }
        // An answer of the same prompt shares it.
        let mut groups: Vec<Group> = vec![];
        for (_, prompt, answer) in rows {
            match groups.last_mut().filter(|group| group.prompt == prompt.as_slice()) {
                Some(group) => group.answers.push(answer),
                None => groups.push(Group { prompt, answers: vec![answer] }),
            }
        }
        Ok(self.model.score(&groups, self.budget, &mut |_| ()).concat())
    }
}

/// The whole conversation by the chat template, without special tokens beside those of the template, as TRL lays it out.
fn by_template(tokenizer: &Tokenizer, item: &Item) -> Result<Ids, ScoreError> {
    let template = tokenizer.template_for(false)?.ok_or(DataError::NoTemplate)?;
    let text = template.render(&item.messages(), &RenderOptions::default())?;
    Ok(Ids { prompt: tokenizer.encode(&text, false)?, answer: vec![] })
}

impl Scorer for Rewards {
    fn score(&mut self, items: &[Item], watch: Watch) -> Result<Vec<Option<Scores>>, ScoreError> {
        in_chunks(self.kind, items, watch, |items| {
            let mut rows = vec![];
            for (index, item) in items.iter().enumerate() {
                if let Some(Ids { prompt, answer }) = self.ids(item)? {
                    rows.push((index, prompt, answer));
                }
            }
            let mut rewards = vec![None; items.len()];
            for ((index, ..), reward) in rows.iter().zip(self.scored(&rows, items)?) {
                rewards[*index] = Some(reward);
            }
            Ok(rewards)
        })
    }
}
