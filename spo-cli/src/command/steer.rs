//! `spo steer`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use spo_data::{Dataset, Group, PairRef};
use spo_model::steering::{Contexts, SavedZ, read_encoder};
use spo_train::config::{RunPlan, SteeringPlan};

use crate::error::CliError;
use crate::inputs::{DeviceArguments, LayoutArguments, TextArguments, incidents, require_rows};
use crate::output::{Output, note};
use crate::places::{Place, run_of};
use crate::scoring::check_rows;

/// Most tokens embedded at once.
const TOKENS: usize = 4096;

/// Make a user's vector of a few labelled pairs
///
/// The policy must be one of a run with [steering]. The file holds pairs of which the user prefers one answer; generate,
/// chat, score, eval and export take what is made with --steer, the scorer np-btl with `steer`. JSON keys: policy (a hash), contexts (pairs that it was made of), z.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A policy of a run, RUN:POLICY, or the run directory for its last one
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// File with the user's labelled pairs, in any layout of training data; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    examples: Vec<PathBuf>,
    /// Whose pairs to take where rows are of several users: a dimension, or what the run's `steering.column` says
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The file to write; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    text: TextArguments,
    #[command(flatten)]
    layout: LayoutArguments,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<(), CliError> {
        if self.out.exists() {
            return Err(CliError::Exists { path: self.out.clone() });
        }
        let (place, plan) = (Place::named(&self.model, None, None)?, self.steering()?);
        let Some(policy) = policy_of(&place)? else {
            return Err(CliError::argument("--model", &place.name, "a policy of a run with [steering]"));
        };
        let data = self.data(&place)?;
        let pairs = self.pairs(&data, &plan)?;
        let device = self.device.open()?;
        let frozen = self.device.load(&device, &place.model, None, None)?;
        check_rows(frozen.spec(), &data)?;
        let groups: Vec<Group> = pairs.iter().map(|pair| group(&data, pair)).collect();
        let embedded = frozen.embeddings(&groups, TOKENS);
        let hidden = frozen.spec().hidden_size;
        let set = embedded.iter().map(|pair| [pair[0].as_slice(), &pair[1]]).collect();
        let encoder = read_encoder(place.adapter.as_ref().unwrap_or(&place.model), hidden, &device)?;
        let z = encoder.forward(&Contexts::new(&[set], 2 * hidden, &device));
        let saved = SavedZ { z: z.into_data().iter::<f32>().collect(), policy, contexts: pairs.len() };
        saved.write(&self.out)?;
        if self.json {
            return output.json(&json!({ "policy": saved.policy, "contexts": saved.contexts, "z": saved.z }));
        }
        output.line(format_args!("{}: {} pairs for {}", self.out.display(), pairs.len(), place.name))
    }

    /// How the run that made the policy tells users apart.
    fn steering(&self) -> Result<SteeringPlan, CliError> {
        let run = run_of(&self.model);
        let plan = run.map(|(run, _)| RunPlan::read(&run)).transpose()?.and_then(|plan| plan.steering);
        plan.ok_or_else(|| {
            CliError::argument("--model", self.model.display().to_string(), "a policy of a run with [steering]")
        })
    }

    fn data(&self, place: &Place) -> Result<Dataset, CliError> {
        let tokenizer = place.tokenizer()?;
        let data = self.layout.load(&self.examples, &self.text.spec(place.text.as_ref()), &tokenizer)?;
        incidents(&data).into_iter().for_each(note);
        require_rows(&data, &self.examples)?;
        Ok(data)
    }

    /// The user's pairs.
    fn pairs(&self, data: &Dataset, plan: &SteeringPlan) -> Result<Vec<PairRef>, CliError> {
        let file = || self.examples.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        let refused =
            |found: String, expected: String| CliError::Unexpected { at: file(), found, expected, usage: false };
        let labelled: Vec<String> =
            data.judged_dimensions().into_iter().filter(|name| !data.pairs(name).is_empty()).collect();
        let named = self.user.as_ref().filter(|user| plan.column.is_none() || labelled.contains(user));
        let dimension = match (named, labelled.as_slice()) {
            (Some(user), _) if labelled.contains(user) => user,
            (None, [only]) => only,
            (_, []) => {
                return Err(refused("no pair with a preferred answer".into(), "labelled pairs of a user".into()));
            }
            (user, several) => {
                let found =
                    user.map_or_else(|| "pairs along several dimensions".into(), |user| format!("no pair of {user:?}"));
                return Err(refused(found, format!("--user with one of {}", several.join(", "))));
            }
        };
        let mut pairs = data.pairs(dimension);
        if let Some(column) = &plan.column {
            let user = |pair: &PairRef| data.examples[pair.example].tags.get(column);
            if let Some(wanted) = self.user.as_ref().filter(|wanted| *wanted != dimension) {
                pairs.retain(|pair| user(pair) == Some(wanted));
            }
            let users: std::collections::BTreeSet<_> = pairs.iter().filter_map(user).collect();
            if users.len() != 1 && !users.is_empty() || pairs.is_empty() {
                let names: Vec<&str> =
                    data.examples.iter().filter_map(|row| Some(row.tags.get(column)?.as_str())).collect();
                let names: std::collections::BTreeSet<_> = names.into_iter().collect();
                let found = format!("pairs of {} users under `{column}`", users.len());
                let names = names.into_iter().collect::<Vec<_>>().join(", ");
                return Err(refused(found, format!("those of one: --user with one of {names}")));
            }
        }
        if pairs.len() > plan.contexts {
            let expected = format!("at most {}, as in training: --limit {}", plan.contexts, plan.contexts);
            return Err(refused(format!("{} pairs", pairs.len()), expected));
        }
        Ok(pairs)
    }
}

fn policy_of(place: &Place) -> Result<Option<String>, CliError> {
    Ok(place.adapter.as_deref().map(SavedZ::policy_of).transpose()?.flatten())
}

fn group<'d>(data: &'d Dataset, pair: &PairRef) -> Group<'d> {
    let example = &data.examples[pair.example];
    let answers = [pair.chosen, pair.rejected].map(|answer| example.answers[answer].as_slice());
    Group { prompt: &example.prompt, answers: answers.to_vec() }
}
