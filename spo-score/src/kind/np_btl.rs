//! A reward model for many users (NP-BTL, arXiv 2412.13998): the reward of the one user whom a few labelled pairs tell.

use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use spo_data::{DataSpec, Dataset, Group, Paths, TextSpec, Tokenizer, load};
use spo_model::export::Manifest;
use spo_model::reward::RewardModel;
use spo_model::steering::{Contexts, SavedZ, SteeringSpec};
use spo_model::{ModelError, device};
use std::path::{Path, PathBuf};

use super::reward_model::Rewards;
use crate::ScoreError;
use crate::entry::{Entry, OpenError, decoded};

/// Its name.
const NAME: &str = "np-btl";

pub(crate) const ENTRY: Entry = Entry {
    name: NAME,
    summary: "a reward model for many users, of a run with [steering]: `steer` or `examples` say whose reward it is",
    example: r#"{ kind = "np-btl", path = "RUN/policies/round-1-honesty", examples = "mine.jsonl" }"#,
    options: || schema_for!(Options),
    argument: Some("path"),
    check: |options| {
        let options: Options = decoded(options)?;
        let wrong = match (&options.steer, &options.examples, &options.user) {
            (Some(_), Some(_), _) => "`steer` and `examples` both say whose reward it is, expected one of them",
            (_, None, Some(_)) => "`user` says whose pairs to take of `examples`, and there are none",
            _ => return Ok(()),
        };
        Err(OpenError::Options(wrong.into()))
    },
    open: |options, opening, _| {
        let mut options: Options = decoded(options)?;
        if let Some(directory) = &opening.directory {
            let paths =
                [Some(&mut options.path), options.base.as_mut(), options.steer.as_mut(), options.examples.as_mut()];
            paths.into_iter().flatten().for_each(|path| *path = directory.join(&*path));
        }
        Ok(Box::new(options.open()?))
    },
};

/// Options of `np-btl`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// The policy's directory in a run with `[steering]` and `objective = "reward"`: RUN/policies/POLICY.
    path: PathBuf,
    /// The model that it was trained on, where that is no longer where the directory's manifest.json says.
    #[serde(default)]
    base: Option<PathBuf>,
    /// The user's vector, which `spo steer` made for this policy. Without it and `examples` the reward is that of a user of
    /// whom nothing is known.
    #[serde(default)]
    steer: Option<PathBuf>,
    /// A file with the user's labelled pairs, in any layout of training data; at most as many as the policy was trained
    /// with.
    #[serde(default)]
    examples: Option<PathBuf>,
    /// The dimension whose pairs of `examples` are the user's, where they have several.
    #[serde(default)]
    user: Option<String>,
    /// Where it runs: `auto`, `cpu`, or a device of `spo list devices`.
    #[serde(default = "super::reward_model::auto")]
    device: String,
    /// Most tokens computed at once.
    #[serde(default = "super::reward_model::tokens")]
    tokens_per_micro_batch: usize,
}

impl Options {
    fn failed(&self, error: ModelError) -> ScoreError {
        let reason = error.hint().map_or_else(|| error.to_string(), |hint| format!("{error} ({hint})"));
        ScoreError::Model { name: self.path.display().to_string(), source: reason.into() }
    }

    fn open(self) -> Result<Rewards, OpenError> {
        let failed = |error| self.failed(error);
        let device = device::open(&self.device).map_err(failed)?;
        let base = self.base()?;
        let text = Manifest::text_of(&self.path).map_err(failed)?;
        let tokenizer = Tokenizer::of_model(&base).map_err(ScoreError::from)?;
        let frozen = RewardModel::base(&base, &device).map_err(failed)?;
        let mut found = frozen.clone().adapted(&self.path).map_err(failed)?;
        let Some(steering) = found.model.steering.as_ref().map(|steering| steering.spec()) else {
            let expected = "expected a reward model of a run with [steering]; `reward-model` takes others";
            return Err(OpenError::Options(format!("{}: {expected}", self.path.display())));
        };
        if let Some(file) = &self.steer {
            let user = SavedZ::read(file).map_err(failed)?;
            found.model = user.steer(found.model, &self.path, file).map_err(failed)?;
        }
        if let Some(file) = &self.examples {
            let text = text.clone().unwrap_or_default();
            let contexts = self.contexts(&frozen, file, (&text, &tokenizer), steering)?;
            found.model = found.model.steered_by(&contexts, None);
        }
        let (path, budget) = (self.path, self.tokens_per_micro_batch);
        Ok(Rewards { kind: NAME, path, budget, model: found, tokenizer: Some(tokenizer), text })
    }

    fn base(&self) -> Result<PathBuf, OpenError> {
        let own = Manifest::base_of(&self.path).map_err(|error| self.failed(error))?;
        self.base.clone().or(own).ok_or_else(|| {
            let missing = "its manifest.json names no model that it was trained on: say which one, `base = DIR`";
            OpenError::Options(format!("{}: {missing}", self.path.display()))
        })
    }

    /// The user's pairs, as the frozen model sees them.
    fn contexts(
        &self,
        frozen: &RewardModel,
        file: &Path,
        (text, tokenizer): (&TextSpec, &Tokenizer),
        steering: SteeringSpec,
    ) -> Result<Contexts, OpenError> {
        let wrong = |reason: String| OpenError::Options(format!("{}: {reason}", file.display()));
        let spec = DataSpec { path: Paths::One(file.display().to_string()), ..DataSpec::default() };
        let data = load(&[spec], text, tokenizer, &mut |_| ()).map_err(ScoreError::from)?;
        let pairs = data.pairs(&self.dimension(&data).map_err(&wrong)?);
        if pairs.len() > steering.contexts {
            let most = steering.contexts;
            return Err(wrong(format!(
                "found {} labelled pairs, expected at most {most}, as in training",
                pairs.len()
            )));
        }
        let mut groups = vec![];
        for pair in &pairs {
            let example = &data.examples[pair.example];
            let answers = [pair.chosen, pair.rejected].map(|answer| example.answers[answer].as_slice());
            frozen
                .model
                .spec()
                .check_row(&example.id, &example.prompt, &answers)
                .map_err(|error| self.failed(error))?;
            groups.push(Group { prompt: &example.prompt, answers: answers.to_vec() });
        }
        let embedded = frozen.model.embeddings(&groups, self.tokens_per_micro_batch);
        let set = embedded.iter().map(|pair| [pair[0].as_slice(), &pair[1]]).collect();
        Ok(Contexts::new(&[set], 2 * frozen.model.spec().hidden_size, &frozen.model.device()))
    }

    /// The dimension whose pairs are the user's.
    fn dimension(&self, data: &Dataset) -> Result<String, String> {
        let labelled = data.judged_dimensions().into_iter().filter(|name| !data.pairs(name).is_empty());
        let labelled: Vec<String> = labelled.collect();
        match (&self.user, labelled.as_slice()) {
            (Some(user), _) if labelled.contains(user) => Ok(user.clone()),
            (None, [only]) => Ok(only.clone()),
            (_, []) => Err("found no pair with a preferred answer, expected labelled pairs of a user".into()),
            (found, _) => {
                let found = found
                    .as_ref()
                    .map_or("pairs along several dimensions".into(), |user| format!("no pair of {user:?}"));
                Err(format!("found {found}, expected `user` as one of {}", labelled.join(", ")))
            }
        }
    }
}
