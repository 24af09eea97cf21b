//! The models to talk to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use spo_data::{TextSpec, Tokenizer};
use spo_model::ModelSpec;
use spo_model::generate::Generator;
use spo_train::config::RunPlan;

use super::Arguments;
use crate::error::CliError;
use crate::inputs::model_tokenizer;

/// A model that answers.
pub(super) struct Policy {
    pub generator: Generator,
    pub tokenizer: Tokenizer,
    pub spec: ModelSpec,
}

/// Where a policy is.
#[derive(Debug, Clone)]
struct Place {
    name: String,
    model: PathBuf,
    adapter: Option<PathBuf>,
}

/// The policies of a run, or one model. They are loaded when they answer for the first time, and stay in memory.
pub(super) struct Policies {
    places: Vec<Place>,
    loaded: BTreeMap<usize, Policy>,
    current: usize,
    plan: Option<RunPlan>,
    device: Device,
}

impl Policies {
    pub fn open(arguments: &Arguments) -> Result<Self, CliError> {
        let (places, plan) = match arguments.dir.join("plan.json").is_file() {
            true if arguments.adapter.is_some() => {
                return Err(CliError::argument("--adapter", "a run directory", "a model directory"));
            }
            true => {
                let plan = read_plan(&arguments.dir)?;
                (places(&arguments.dir, &plan)?, Some(plan))
            }
            false => {
                let (model, adapter) = (arguments.dir.clone(), arguments.adapter.clone());
                let name = arguments.dir.file_name().unwrap_or(arguments.dir.as_os_str()).to_string_lossy();
                (vec![Place { name: name.into(), model, adapter }], None)
            }
        };
        let device = arguments.device.open()?;
        let last = plan.as_ref().and_then(|plan| plan.rounds.last()).map(|round| round.name.clone());
        let current = places.iter().position(|place| Some(&place.name) == last.as_ref()).unwrap_or(places.len() - 1);
        Ok(Self { places, loaded: BTreeMap::new(), current, plan, device })
    }

    /// How text is laid out: as in the run, else by the chat template.
    pub fn text(&self, arguments: &Arguments) -> TextSpec {
        let mut text = self.plan.as_ref().map(|plan| plan.text.clone()).unwrap_or_default();
        if let Some(format) = &arguments.prompt_format {
            text.prompt_format = Some(format.replace("\\n", "\n"));
        }
        if arguments.system.is_some() {
            text.system.clone_from(&arguments.system);
        }
        text
    }

    /// Changes the policy that answers; `None` keeps it.
    pub fn select(&mut self, name: Option<&str>) -> Result<(), CliError> {
        let Some(name) = name else { return Ok(()) };
        let found = self.places.iter().position(|place| place.name == name);
        self.current = found.ok_or_else(|| CliError::argument("policy", name, self.names().join(", ")))?;
        Ok(())
    }

    /// Name of the policy that answers.
    pub fn current(&self) -> &str {
        &self.places[self.current].name
    }

    pub fn names(&self) -> Vec<&str> {
        self.places.iter().map(|place| place.name.as_str()).collect()
    }

    /// The policy of this number; `None` is the current one.
    pub fn policy(&mut self, number: Option<usize>, arguments: &Arguments) -> Result<&mut Policy, CliError> {
        let number = number.unwrap_or(self.current);
        if !self.loaded.contains_key(&number) {
            let Place { model: dir, adapter, .. } = &self.places[number];
            let tokenizer = model_tokenizer(dir)?;
            let model = arguments.device.load(&self.device, dir, adapter.as_deref())?;
            let spec = model.spec().clone();
            let generator = arguments.decode.generator(model, dir, 1);
            self.loaded.insert(number, Policy { generator, tokenizer, spec });
        }
        Ok(self.loaded.get_mut(&number).expect("just loaded"))
    }
}

fn read_plan(run: &Path) -> Result<RunPlan, CliError> {
    let path = run.join("plan.json");
    let text = std::fs::read_to_string(&path).map_err(|source| CliError::io(&path, source))?;
    serde_json::from_str(&text).map_err(|error| CliError::Unexpected {
        at: path.display().to_string(),
        found: error.to_string(),
        expected: "the plan of a run".into(),
        usage: false,
    })
}

/// The starting model, then the policies that the run has saved, in their order in the plan.
fn places(run: &Path, plan: &RunPlan) -> Result<Vec<Place>, CliError> {
    let base = plan.model.path.clone();
    let mut places = vec![Place { name: "start".into(), model: base.clone(), adapter: None }];
    let dir = run.join("policies");
    let entries = std::fs::read_dir(&dir).map_err(|source| CliError::io(&dir, source))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && name != "start")
        .collect();
    let order = |name: &String| plan.rounds.iter().position(|round| name.starts_with(&round.name));
    names.sort_by_key(|name| (order(name).map_or(0, |round| round + 1), name.clone()));
    for name in names {
        let policy = dir.join(&name);
        places.push(match policy.join("adapter_config.json").is_file() {
            true => Place { name, model: base.clone(), adapter: Some(policy) },
            false => Place { name, model: policy, adapter: None },
        });
    }
    Ok(places)
}
