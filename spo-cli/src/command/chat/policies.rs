//! The models to talk to.

use std::collections::BTreeMap;

use burn::tensor::Device;
use spo_data::meta::MetaPrompts;
use spo_data::{TextSpec, Tokenizer};
use spo_model::ModelSpec;
use spo_model::generate::Generator;
use spo_model::lora::Weights;
use spo_train::config::RunPlan;

use super::Arguments;
use crate::error::CliError;
use crate::places::{Place, is_run, last, place, policies};
use crate::steering::steered;

/// A model that answers.
pub(super) struct Policy {
    pub generator: Generator,
    pub tokenizer: Tokenizer,
    pub spec: ModelSpec,
}

/// The policies of a run, or one model. They are loaded when they answer for the first time, and stay in memory.
pub(super) struct Policies {
    places: Vec<Place>,
    loaded: BTreeMap<usize, Policy>,
    current: usize,
    /// The one that `--steer` is for.
    steered: Option<usize>,
    /// How much conditional policies count each dimension.
    weights: Option<Weights>,
    device: Device,
}

impl Policies {
    pub fn open(arguments: &Arguments) -> Result<Self, CliError> {
        let (places, plan) = match is_run(&arguments.dir) {
            true if arguments.adapter.is_some() => {
                return Err(CliError::argument("--adapter", "a run directory", "a model directory"));
            }
            true => {
                let plan = RunPlan::read(&arguments.dir)?;
                (policies(&arguments.dir, &plan)?, Some(plan))
            }
            false => {
                let name = arguments.dir.file_name().unwrap_or(arguments.dir.as_os_str()).to_string_lossy();
                (vec![Place::directories(name.into(), &arguments.dir, arguments.adapter.as_deref())?], None)
            }
        };
        let device = arguments.device.open()?;
        let last = plan.as_ref().map(last);
        let current = places.iter().position(|place| Some(place.name.as_str()) == last).unwrap_or(places.len() - 1);
        Ok(Self { places, loaded: BTreeMap::new(), current, steered: None, weights: None, device })
    }

    /// How text is laid out: as in the run that made the policies, else by the chat template.
    pub fn text(&self, arguments: &Arguments) -> TextSpec {
        let mut text = self.places.first().and_then(|place| place.text.clone()).unwrap_or_default();
        if let Some(format) = &arguments.prompt_format {
            text.prompt_format = Some(format.replace("\\n", "\n"));
        }
        if arguments.system.is_some() {
            text.system.clone_from(&arguments.system);
        }
        text
    }

    /// The meta-prompts that the policies were trained with.
    pub fn meta_prompts(&self) -> Option<&MetaPrompts> {
        self.places.first().and_then(|place| place.meta.as_ref())
    }

    /// Changes the policy that answers; `None` keeps it.
    pub fn select(&mut self, name: Option<&str>) -> Result<(), CliError> {
        let Some(name) = name else { return Ok(()) };
        let found = place(&self.places, name)?;
        self.current = self.places.iter().position(|place| place == found).expect("it is one of them");
        Ok(())
    }

    /// Steers the policy that answers by the user that `--steer` names, if it does.
    pub fn steer(&mut self, arguments: &Arguments) -> Result<(), CliError> {
        if arguments.steer.is_some() {
            self.steered = Some(self.current);
            self.policy(None, arguments)?;
        }
        Ok(())
    }

    /// Changes how much conditional policies count each dimension; the current one must be one.
    pub fn weigh(&mut self, weights: Weights) -> Result<(), CliError> {
        self.places[self.current].clone().at(Some(&weights))?;
        for (number, place) in self.places.iter().enumerate() {
            if place.front()?.is_some() {
                self.loaded.remove(&number);
            }
        }
        self.weights = Some(weights);
        Ok(())
    }

    /// The weights in words.
    pub fn weights(&self) -> String {
        self.weights.as_ref().map_or_else(|| "none".to_owned(), Weights::to_string)
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
            let place = self.places[number].clone();
            let weights = if place.front()?.is_some() { self.weights.as_ref() } else { None };
            let (place, tokenizer) = (place.at(weights)?, self.places[number].tokenizer()?);
            let model = place.load(&arguments.device, &self.device)?;
            let file = arguments.steer.as_deref().filter(|_| self.steered == Some(number));
            let model = steered(file, model, &place)?;
            let spec = model.spec().clone();
            let generator = arguments.decode.generator(model, &place.model, 1);
            self.loaded.insert(number, Policy { generator, tokenizer, spec });
        }
        Ok(self.loaded.get_mut(&number).expect("just loaded"))
    }
}
