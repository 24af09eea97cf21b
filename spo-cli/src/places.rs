//! Where models are: a directory, or a policy of a run by its name.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Args;
use spo_data::meta::MetaPrompts;
use spo_data::{TextSpec, Tokenizer};
use spo_model::CausalLm;
use spo_model::export::Manifest;
use spo_model::lora::front::{FRONT_CONFIG, equal, front_of};
use spo_model::lora::{Condition, FrontSpec, Weights};
use spo_train::TrainError;
use spo_train::config::RunPlan;
use spo_train::persist::directory;
use spo_train::persist::durable::seal_fault;

use crate::error::CliError;
use crate::hub;
use crate::inputs::DeviceArguments;

/// A point of a conditional policy's front.
#[derive(Debug, Args)]
pub(crate) struct PointArguments {
    /// How much each dimension counts for a policy of a run with `condition = "weights"`: honesty=0.7,helpfulness=0.3
    #[arg(long, value_name = "DIMENSION=W,...", value_parser = weights)]
    pub weights: Option<Weights>,
}

fn weights(text: &str) -> Result<Weights, String> {
    match text {
        "f32" | "bf16" | "q8" => Err(format!("the number format of weights is `--weight-format {text}` now")),
        other => other.parse(),
    }
}

/// A model directory, with the adapter on it if there is one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    /// What a person calls it.
    pub name: String,
    pub model: PathBuf,
    pub adapter: Option<PathBuf>,
    /// The weights of a conditional adapter's dimensions.
    pub point: Option<Vec<f64>>,
    /// How the run that made it laid out text, where that is known.
    pub text: Option<TextSpec>,
    /// The meta-prompts of that run, if it had any.
    pub meta: Option<MetaPrompts>,
}

impl Place {
    /// What `--model`, `--adapter` and `--weights` name: a model directory, `RUN:POLICY` with a run directory, or the run
    /// directory alone for the policy that its last round made. Behind an `@` the name may have weights of its own.
    ///
    /// # Errors
    /// The run has no such policy, or its best one is damaged; weights for a policy that follows none, or none for one that
    /// does.
    pub fn named(model: &Path, adapter: Option<&Path>, weights: Option<&Weights>) -> Result<Self, CliError> {
        let name = model.display().to_string();
        match name.rsplit_once('@').filter(|(_, own)| own.contains('=')) {
            Some((model, own)) => {
                let own = own.parse().map_err(|reason: String| CliError::argument("weights", own, reason))?;
                Self::whole(Path::new(model), adapter)?.at(Some(&own))
            }
            None => Self::whole(model, adapter)?.at(weights),
        }
    }

    /// The place, at a point of its front if it has one.
    ///
    /// # Errors
    /// Weights for a policy that follows none, none for one that does, or other weights than it needs.
    pub fn at(self, weights: Option<&Weights>) -> Result<Self, CliError> {
        let (front, name) = (self.front()?, &self.name);
        match (front, weights) {
            (None, None) => Ok(self),
            (None, Some(weights)) => {
                let found = format!("{weights} for {name}");
                Err(CliError::argument("--weights", found, "none: the policy is not conditioned on weights"))
            }
            (Some(front), None) => {
                let example = Weights::new(front.dimensions(), &equal(front.matrices()));
                let expected = format!("weights, such as {example}: {name} is conditioned on them");
                Err(CliError::argument("--weights", "none", expected))
            }
            (Some(front), Some(weights)) => {
                let point = weights.on(&front)?;
                let name = format!("{name}@{}", Weights::new(front.dimensions(), &point));
                Ok(Self { name, point: Some(point), ..self })
            }
        }
    }

    /// The front of its adapter, if that is conditioned on weights.
    ///
    /// # Errors
    /// The adapter's configuration cannot be read.
    pub fn front(&self) -> Result<Option<FrontSpec>, CliError> {
        let front = self.adapter.as_deref().map(front_of).transpose()?.flatten();
        Ok(front.filter(|front| matches!(front.condition, Condition::Weights(_))))
    }

    fn whole(model: &Path, adapter: Option<&Path>) -> Result<Self, CliError> {
        let name = model.display().to_string();
        let Some((run, policy)) = run_of(model) else {
            return Self::directories(name, model, adapter);
        };
        if adapter.is_some() {
            return Err(CliError::argument("--adapter", "a policy of a run", "a model directory"));
        }
        let plan = RunPlan::read(&run)?;
        let places = policies(&run, &plan)?;
        let place = place(&places, policy.as_deref().unwrap_or_else(|| last(&plan)))?;
        Ok(Self { name, ..place.clone() })
    }

    /// A model directory with an adapter's on it, or names of the Hub; text is laid out as the manifest of the adapter says, else as the
    /// model's.
    pub fn directories(name: String, model: &Path, adapter: Option<&Path>) -> Result<Self, CliError> {
        let (model, adapter) = (hub::model(model)?, adapter.map(hub::model).transpose()?);
        let own = |dir: &Path| Ok::<_, CliError>((Manifest::text_of(dir)?, Manifest::meta_prompts_of(dir)?));
        let of_adapter = adapter.as_deref().map(own).transpose()?.unwrap_or_default();
        let (text, meta) = if of_adapter.0.is_some() { of_adapter } else { own(&model)? };
        Ok(Self { name, model, adapter, point: None, text, meta })
    }

    /// Loads its model.
    ///
    /// # Errors
    /// Files that are missing or do not fit.
    pub fn load(&self, arguments: &DeviceArguments, device: &Device) -> Result<CausalLm, CliError> {
        arguments.load(device, &self.model, self.adapter.as_deref(), self.point.as_deref())
    }

    /// Its tokenizer; a model without one can still score token ids.
    pub fn tokenizer(&self) -> Result<Tokenizer, CliError> {
        Ok(Tokenizer::of_model(&self.model)?)
    }
}

/// The run directory of `RUN:POLICY` or `RUN`, and the policy if one is named; `None` where it is no run's.
pub(crate) fn run_of(model: &Path) -> Option<(PathBuf, Option<String>)> {
    let name = model.display().to_string();
    let split = name.rsplit_once(':').map(|(run, policy)| (PathBuf::from(run), Some(policy.to_owned())));
    [Some((model.to_owned(), None)), split].into_iter().flatten().find(|(run, _)| is_run(run))
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
    let meta = plan.meta_prompts();
    let place = |name, model, adapter| {
        let (text, meta) = (text.clone(), meta.clone());
        Place { name, model, adapter, point: None, text, meta }
    };
    let mut places = vec![place(directory::START.into(), base.clone(), adapter)];
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
        let adapted = ["adapter_config.json", FRONT_CONFIG].iter().any(|file| policy.join(file).is_file());
        places.push(if adapted { place(name, base.clone(), Some(policy)) } else { place(name, policy, None) });
    }
    Ok(places)
}
