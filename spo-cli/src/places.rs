//! Where models are: a directory, or a policy of a run by its name.

use std::path::{Path, PathBuf};

use spo_data::{TextSpec, Tokenizer};
use spo_model::export::Manifest;
use spo_train::TrainError;
use spo_train::config::RunPlan;
use spo_train::persist::directory;
use spo_train::persist::durable::seal_fault;

use crate::error::CliError;
use crate::hub;

/// A model directory, with the adapter on it if there is one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    /// What a person calls it.
    pub name: String,
    pub model: PathBuf,
    pub adapter: Option<PathBuf>,
    /// How the run that made it laid out text, where that is known.
    pub text: Option<TextSpec>,
}

impl Place {
    /// What `--model` and `--adapter` name: a model directory, `RUN:POLICY` with a run directory, or the run directory alone
    /// for the policy that its last round made.
    ///
    /// # Errors
    /// The run has no such policy, or its best one is damaged.
    pub fn named(model: &Path, adapter: Option<&Path>) -> Result<Self, CliError> {
        let name = model.display().to_string();
        let split = name.rsplit_once(':').map(|(run, policy)| (Path::new(run), Some(policy)));
        let run = [Some((model, None)), split].into_iter().flatten().find(|(run, _)| is_run(run));
        let Some((run, policy)) = run else {
            return Self::directories(name, model, adapter);
        };
        if adapter.is_some() {
            return Err(CliError::argument("--adapter", "a policy of a run", "a model directory"));
        }
        let plan = RunPlan::read(run)?;
        let places = policies(run, &plan)?;
        let place = place(&places, policy.unwrap_or_else(|| last(&plan)))?;
        Ok(Self { name, ..place.clone() })
    }

    /// A model directory with an adapter's on it, or names of the Hub; text is laid out as the manifest of the adapter says, else as the
    /// model's.
    pub fn directories(name: String, model: &Path, adapter: Option<&Path>) -> Result<Self, CliError> {
        let (model, adapter) = (hub::model(model)?, adapter.map(hub::model).transpose()?);
        let of_adapter = adapter.as_deref().map(Manifest::text_of).transpose()?.flatten();
        let text = if of_adapter.is_some() { of_adapter } else { Manifest::text_of(&model)? };
        Ok(Self { name, model, adapter, text })
    }

    /// Its tokenizer; a model without one can still score token ids.
    pub fn tokenizer(&self) -> Result<Tokenizer, CliError> {
        Ok(Tokenizer::of_model(&self.model)?)
    }
}

/// Whether a directory is that of a run.
pub(crate) fn is_run(dir: &Path) -> bool {
    dir.join(directory::PLAN).is_file()
}

/// The policy that a run ends with.
pub(crate) fn last(plan: &RunPlan) -> &str {
    plan.rounds.last().map_or(directory::START, |round| &round.name)
}

/// The policy of this name, whole.
pub(crate) fn place<'p>(places: &'p [Place], name: &str) -> Result<&'p Place, CliError> {
    let names = || places.iter().map(|place| place.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = places.iter().find(|place| place.name == name);
    let found = found.ok_or_else(|| CliError::argument("policy", name, names()))?;
    let dir = found.adapter.as_ref().unwrap_or(&found.model);
    let fault = if name.ends_with(directory::BEST) { seal_fault(dir)? } else { None };
    fault.map_or(Ok(found), |reason| Err(TrainError::Damaged { path: dir.clone(), reason }.into()))
}

/// The starting model, then the policies that the run has saved, in their order in the plan.
pub(crate) fn policies(run: &Path, plan: &RunPlan) -> Result<Vec<Place>, CliError> {
    let base = plan.model.path.clone();
    let adapter = plan.lora.as_ref().and_then(|lora| lora.start.clone());
    let text = Some(plan.text.clone());
    let mut places = vec![Place { name: directory::START.into(), model: base.clone(), adapter, text: text.clone() }];
    let dir = run.join(directory::POLICIES);
    let entries = std::fs::read_dir(&dir).map_err(|source| CliError::io(&dir, source))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && name != directory::START)
        .collect();
    let order = |name: &String| plan.rounds.iter().position(|round| name.starts_with(&round.name));
    names.sort_by_key(|name| (order(name).map_or(0, |round| round + 1), name.clone()));
    for name in names {
        let policy = dir.join(&name);
        places.push(match policy.join("adapter_config.json").is_file() {
            true => Place { name, model: base.clone(), adapter: Some(policy), text: text.clone() },
            false => Place { name, model: policy, adapter: None, text: text.clone() },
        });
    }
    Ok(places)
}
