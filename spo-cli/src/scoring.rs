//! Rows of files under a model: what `spo score` and `spo eval` have in common.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Args;
use spo_data::{Dataset, Example, Group, Record, Tokenizer};
use spo_model::{CausalLm, ModelSpec};

use crate::error::CliError;
use crate::inputs::{DeviceArguments, LayoutArguments, TextArguments, incidents, require_rows};
use crate::meta::MetaArguments;
use crate::output::note;
use crate::places::{Place, PointArguments};
use crate::steering::SteerArguments;

/// How rows are read and scored.
#[derive(Debug, Args)]
pub(crate) struct ScoreArguments {
    /// Most tokens computed at once
    #[arg(long, value_name = "N", default_value_t = 4096, help_heading = "Device")]
    tokens_per_micro_batch: usize,
    #[command(flatten)]
    steering: SteerArguments,
    #[command(flatten)]
    pub meta: MetaArguments,
    #[command(flatten)]
    device: DeviceArguments,
    #[command(flatten)]
    text: TextArguments,
    #[command(flatten)]
    layout: LayoutArguments,
}

/// Rows to be scored, and the place of the model that scores them.
pub(crate) struct Opened {
    pub device: Device,
    pub place: Place,
    pub tokenizer: Tokenizer,
    pub data: Dataset,
}

impl ScoreArguments {
    /// Reads the rows with the tokenizer of a model, and says what happened to them.
    pub fn open(
        &self,
        model: &Path,
        adapter: Option<&Path>,
        point: &PointArguments,
        files: &[PathBuf],
    ) -> Result<Opened, CliError> {
        let device = self.device.open()?;
        let place = Place::named(model, adapter, point.weights.as_ref())?;
        let tokenizer = place.tokenizer()?;
        let (text, meta) = (self.text.spec(place.text.as_ref()), self.meta.meta(place.meta.as_ref())?);
        let data = self.layout.load_behind(meta.rows(text.system.as_ref()), files, &text, &tokenizer)?;
        incidents(&data).into_iter().for_each(note);
        require_rows(&data, files)?;
        Ok(Opened { device, place, tokenizer, data })
    }

    /// Where to compute.
    pub fn device(&self) -> Result<Device, CliError> {
        self.device.open()
    }

    /// The rows of files as text; says which columns nobody read.
    pub fn records(&self, files: &[PathBuf]) -> Result<Vec<Record>, CliError> {
        self.layout.records(files)
    }

    /// Loads a model that can take all rows.
    pub fn model(&self, device: &Device, place: &Place, data: &Dataset) -> Result<CausalLm, CliError> {
        let model = place.load(&self.device, device)?;
        check_rows(model.spec(), data)?;
        Ok(model)
    }

    /// As [`Self::model`], steered by the user that `--steer` names.
    pub fn steered_model(&self, device: &Device, place: &Place, data: &Dataset) -> Result<CausalLm, CliError> {
        self.steering.on(self.model(device, place, data)?, place)
    }

    /// Token log-probs of each answer of each example.
    ///
    /// # Errors
    /// One is not finite.
    pub fn score(&self, model: &CausalLm, examples: &[Example]) -> Result<Vec<Vec<Vec<f32>>>, CliError> {
        let groups: Vec<Group> = examples
            .iter()
            .map(|example| Group {
                prompt: &example.prompt,
                answers: example.answers.iter().map(|answer| answer.as_slice()).collect(),
            })
            .collect();
        let scored = model.score(&groups, self.tokens_per_micro_batch, &Default::default(), &mut |_| ());
        for (example, answers) in examples.iter().zip(&scored) {
            if let Some(logp) = answers.iter().flatten().find(|logp| !logp.is_finite()) {
                return Err(CliError::Unexpected {
                    at: example.id.clone(),
                    found: format!("a log-prob of {logp}"),
                    expected: "a finite number; the weights overflow in this --dtype, or had diverged".into(),
                    usage: false,
                });
            }
        }
        Ok(scored)
    }
}

/// Every row must be in the vocabulary and fit the context before anything is computed.
pub(crate) fn check_rows(spec: &ModelSpec, data: &Dataset) -> Result<(), CliError> {
    for example in &data.examples {
        let answers: Vec<&[u32]> = example.answers.iter().map(|answer| answer.as_slice()).collect();
        spec.check_row(&example.id, &example.prompt, &answers)?;
    }
    Ok(())
}
