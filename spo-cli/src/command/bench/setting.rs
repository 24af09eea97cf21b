//! What every measurement starts from: the device, the pairs, the model.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use spo_data::{Dataset, Example, Group, PackedBatch};
use spo_kernels::memory::taken;
use spo_model::export::{self, ModelFiles};
use spo_model::lora::merge_adapter;
use spo_model::{CausalLm, ModelSpec, device};
use spo_train::TrainError;
use spo_train::config::{Facts, RunPlan, RunSpec, resolve};
use spo_train::step::memory::peak_resident_bytes;
use tempfile::TempDir;

use super::figures::Figures;
use super::peak::matmul_flops;
use super::{Arguments, STARTED};
use crate::error::CliError;
use crate::inputs::{incidents, open, require_rows};
use crate::output::note;
use crate::places::Place;
use crate::scoring::check_rows;

/// Rows read for each pair that is wanted: some are dropped, some layouts give a pair in several rows.
const ROWS_PER_PAIR: usize = 4;

/// The run file of a measurement, but for what the arguments say.
const RUN: &str = r#"
schema = 1
data = [{ path = "of the command line" }]
model = { path = "of the command line" }
rounds = [{ dimension = "preference", objective = "dpo" }]
training = { schedule = "constant", warmup-ratio = 0.0, shuffle = false }
"#;

/// Keys of the run file that an argument of this command says.
const SAID: [(&str, &str); 7] = [
    ("model.path", "--model"),
    ("model.dtype", "--dtype"),
    ("model.device", "--device"),
    ("model.matmul", "--matmul"),
    ("training.epochs", "--epochs"),
    ("training.pairs-per-step", "--pairs-per-step"),
    ("lora.rank", "--lora"),
];

pub(super) struct Setting<'a> {
    pub arguments: &'a Arguments,
    pub device: Device,
    /// The directory of the whole model.
    pub model: PathBuf,
    pub spec: ModelSpec,
    /// The examples of the pairs, in order.
    pub data: Dataset,
    /// The dimension that all of them have.
    pub dimension: String,
    /// Where files of the measurement go.
    pub place: TempDir,
}

/// When things happened.
pub(super) struct Times {
    /// From the start of the process to the first step, seconds.
    pub first: f64,
    /// Each measured epoch, seconds.
    pub epochs: Vec<f64>,
    /// Largest resident memory, bytes.
    pub peak_bytes: u64,
    /// Memory taken of the card, bytes.
    pub card_bytes: Option<u64>,
}

/// What one epoch does.
pub(super) struct Work {
    /// Pairs, or prompts.
    pub pairs: usize,
    /// Tokens run through the model, or generated.
    pub tokens: usize,
    /// Least operations.
    pub flops: f64,
}

impl<'a> Setting<'a> {
    pub fn new(arguments: &'a Arguments, device: &str) -> Result<Self, CliError> {
        said_once(&arguments.set)?;
        let device = device::open(device)?;
        device::multiply_by(&device, arguments.matmul, arguments.dtype.storage())?;
        let place =
            TempDir::with_prefix("spo-bench-").map_err(|source| CliError::Io { path: std::env::temp_dir(), source })?;
        let policy = Place::named(&arguments.model, None, None)?;
        let spec = ModelSpec::from_path(&policy.model)?;
        let (data, dimension) = pairs(arguments, &policy, spec.context)?;
        check_rows(&spec, &data)?;
        let model = match &policy.adapter {
            None => policy.model,
            Some(adapter) => merged(&policy.model, adapter, place.path(), &device)?,
        };
        Ok(Self { arguments, device, model, spec, data, dimension, place })
    }

    /// The model, anew.
    pub fn model(&self) -> Result<CausalLm, CliError> {
        open(&self.model, self.arguments.dtype.storage(), self.arguments.as_stored, &self.device)
    }

    /// The plan of a run on these pairs, in file order and with a constant learning rate; else as `spo plan` says.
    pub fn plan(&self) -> Result<RunPlan, CliError> {
        let arguments = self.arguments;
        let mut spec = RunSpec::from_str("spo bench", RUN)?;
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let mut sets = vec![
            format!("model.path={}", text(&self.model.to_string_lossy())),
            format!("model.dtype={}", serde_json::json!(arguments.dtype)),
            format!("rounds.0.dimension={}", text(&self.dimension)),
            format!("training.epochs={}", arguments.epochs + 1),
            format!("training.pairs-per-step={}", arguments.pairs_per_step),
        ];
        sets.extend(arguments.lora.map(|rank| format!("lora.rank={rank}")));
        sets.extend(arguments.lora.map(|rank| format!("lora.alpha={}", 2 * rank)));
        let stored = arguments.as_stored && arguments.lora.is_some();
        sets.extend(stored.then(|| r#"lora.quantised-base="as-stored""#.to_owned()));
        for set in sets.iter().chain(&arguments.set) {
            spec.apply_set(set)?;
        }
        let facts = Facts {
            pairs: [(self.dimension.clone(), self.data.examples.len())].into(),
            context_length: Some(self.spec.context),
            ..Facts::default()
        };
        Ok(resolve(&spec, &facts)?)
    }

    /// Tokens scored at once.
    pub fn budget(&self, plan: &RunPlan) -> usize {
        2 * plan.rounds[0].main().training.micro_batch_tokens(&self.device)
    }

    /// The tokens of each pair.
    pub fn groups(&self) -> Vec<Group<'_>> {
        self.data.examples.iter().map(group).collect()
    }

    /// One forward pass over all pairs.
    pub fn work(&self) -> Work {
        let batch = PackedBatch::new(&self.groups());
        Work { pairs: batch.groups.len(), tokens: batch.tokens(), flops: self.spec.forward_flops(&batch) }
    }

    /// Waits for the device.
    pub fn sync(device: &Device) {
        // A device that failed says so at the next read.
        let _ = device.sync();
    }

    /// The figures of a measurement; `times` are taken before, because the matrix products need memory of their own.
    pub fn figures(&self, what: &'static str, times: Times, work: Work) -> Figures {
        let peak = matmul_flops(&self.device, self.arguments.dtype.storage().dtype().into());
        Figures::new(what, self.arguments, device::describe(&self.device), times, work, peak)
    }
}

/// Runs `epoch` once to warm up and then as often as is measured. It calls its argument at its first step.
pub(super) fn repeat(
    setting: &Setting,
    mut epoch: impl FnMut(usize, &mut dyn FnMut()) -> Result<(), TrainError>,
) -> Result<Times, TrainError> {
    let (mut first, mut epochs) = (None, vec![]);
    for index in 0..=setting.arguments.epochs {
        let started = Instant::now();
        epoch(index, &mut || {
            first.get_or_insert_with(|| STARTED.elapsed().as_secs_f64());
        })?;
        Setting::sync(&setting.device);
        epochs.push(started.elapsed().as_secs_f64());
    }
    epochs.remove(0);
    Ok(Times {
        first: first.unwrap_or_default(),
        epochs,
        peak_bytes: peak_resident_bytes(),
        card_bytes: taken(&setting.device),
    })
}

/// Refuses what an argument of this command says already.
fn said_once(sets: &[String]) -> Result<(), CliError> {
    for set in sets {
        let key = set.split('=').next().unwrap_or_default().trim();
        if let Some((_, argument)) = SAID.iter().find(|(said, _)| *said == key) {
            return Err(CliError::argument("--set", set.clone(), format!("{argument}, which says the same here")));
        }
    }
    Ok(())
}

/// The directory of a model with an adapter's weights in it, below `place`.
fn merged(model: &Path, adapter: &Path, place: &Path, device: &Device) -> Result<PathBuf, CliError> {
    let dir = place.join("model");
    let merged = merge_adapter(CausalLm::from_dir(model, None, device)?, adapter)?;
    export::save(&merged, &ModelFiles::from_path(model)?, &dir, export::SHARD_BYTES)?;
    Ok(dir)
}

/// The first pairs of the first dimension, each example with its chosen answer first.
fn pairs(arguments: &Arguments, policy: &Place, context: usize) -> Result<(Dataset, String), CliError> {
    let tokenizer = policy.tokenizer()?;
    let mut text = arguments.text.spec(policy.text.as_ref());
    text.max_length.get_or_insert(context);
    let rows = arguments.pairs.saturating_mul(ROWS_PER_PAIR);
    let mut data = arguments.layout.load_at_most(&arguments.data, rows, &text, &tokenizer)?;
    incidents(&data).into_iter().for_each(note);
    let (dimension, _) = data.dimensions().into_iter().next().unwrap_or_default();
    let keep: Vec<usize> = data.pairs(&dimension).iter().take(arguments.pairs).map(|pair| pair.example).collect();
    let examples = keep.into_iter().map(|index| data.examples[index].clone()).collect();
    data.examples = examples;
    require_rows(&data, &arguments.data)?;
    Ok((data, dimension))
}

fn group(example: &Example) -> Group<'_> {
    Group { prompt: &example.prompt, answers: example.answers.iter().map(|answer| answer.as_slice()).collect() }
}
