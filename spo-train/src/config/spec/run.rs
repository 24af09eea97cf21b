//! The whole run file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CheckpointSpec, DataEntry, EvaluationSpec, LoraSpec, ModelSpec, ParallelSpec, RoundSpec, SteeringSpec, TextSpec,
    TrackSpec, TrainingSpec, WarmupSpec, WatchdogSpec,
};
use crate::config::document::{Content, Document, Node};
use crate::config::migrate::migrate;
use crate::config::registries::{Known, Registries};
use crate::config::validate::validate;
use crate::error::ConfigError;

/// A run file that was read and found well-formed: every key exists, every value has the right type and range.
#[derive(Clone, Debug)]
pub struct RunSpec {
    pub(crate) document: Document,
    sections: RunSections,
    source: Source,
    known: Arc<Known>,
    pins: Vec<Located>,
}

/// A name of the Hugging Face Hub in a run file, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Located {
    /// As the run file names it.
    pub asked: String,
    /// The whole name, with the branch that was read.
    pub name: String,
    /// The commit that it was.
    pub commit: String,
    /// Where its files lie.
    pub path: PathBuf,
}

/// Where a run file came from: enough to read it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// How it is called in messages.
    pub name: String,
    /// The file, absolute; `None` if it was given as text.
    pub path: Option<PathBuf>,
    /// Its text.
    pub text: String,
    /// Changes of it, in order.
    pub arguments: Vec<Argument>,
}

/// A change of a run file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Argument {
    /// As `--set` takes it.
    pub text: String,
    /// Where relative paths in it begin; `None` in runs of before this was kept.
    pub directory: Option<PathBuf>,
}

/// An argument as a manifest has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Whole { text: String, directory: Option<PathBuf> },
    Text(String),
}

impl From<Written> for Argument {
    fn from(written: Written) -> Self {
        match written {
            Written::Whole { text, directory } => Self { text, directory },
            Written::Text(text) => Self { text, directory: None },
        }
    }
}

/// A run: one model, one or more data sources, one or more rounds in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RunSections {
    /// Required. Version of the run file's layout: 1.
    pub schema: u32,
    /// Name of the run; default: the file's name without its ending.
    pub name: Option<String>,
    /// Seed of the data order, the split, sampling and the adapters' first values.
    pub seed: Option<u64>,
    /// Run directory, relative to the run file; default `runs/NAME`. It must not exist yet.
    pub out: Option<PathBuf>,
    /// Share of the prompts held out for evaluation, chosen by a hash of the prompt; 0 holds out none, and nothing is evaluated. Only without `split = "test"` data.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
    pub holdout: Option<f64>,
    /// In place of `holdout`: a part of the prompts that is held out, `"2/5"` for the second of five. The parts depend on the
    /// prompts alone, not on the seed: five runs from `"1/5"` to `"5/5"` hold out each prompt once. Only without
    /// `split = "test"` data.
    pub holdout_fold: Option<String>,
    /// Share of the training prompts, chosen by a hash of the prompt, whose pairs drive the λ of rounds with `hold` and nothing
    /// else: no round trains on them, and what was reached is judged on the held-out pairs. Without `hold` none are kept.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub hold_share: Option<f64>,
    /// Directory that keeps tokenised data, so that `spo plan` and later runs on the same files, tokenizer and settings
    /// need not tokenise again; without it nothing is kept.
    pub token_cache: Option<PathBuf>,
    /// The model every round starts from.
    pub model: ModelSpec,
    /// Train low-rank adapters and keep the model's own weights frozen. Without this section all weights are trained.
    pub lora: Option<LoraSpec>,
    /// Make one policy for many users, which a few labelled pairs of a user steer (NP-DPO, arXiv 2412.13998). Trained beside
    /// the adapters of `[lora]`, in a run of one round; docs/conditional.md.
    pub steering: Option<SteeringSpec>,
    /// Sources of preference pairs.
    #[schemars(length(min = 1))]
    pub data: Vec<DataEntry>,
    /// How text becomes tokens. `max-length` is at most the model's context length, and that if absent.
    pub text: Option<TextSpec>,
    /// A supervised warm-up on the preferred answers before the first round: one example for each pair of the dimensions.
    /// Also takes every key of `[training]`; those it does not set come from `[training]`, except `steps`, `epochs` and
    /// `learning-rate`. `pairs-per-step` counts answers here.
    pub warmup: Option<WarmupSpec>,
    /// How a round is trained. Every key can be set again inside a `[[rounds]]` or `[warmup]` table.
    pub training: Option<TrainingSpec>,
    /// The rounds, in order.
    #[schemars(length(min = 1))]
    pub rounds: Vec<RoundSpec>,
    /// What is measured on the held-out pairs after every round.
    pub evaluation: Option<EvaluationSpec>,
    /// From when on a run warns of what looks wrong; 0 turns a warning off. A value that is not finite always ends the run.
    pub watchdog: Option<WatchdogSpec>,
    /// Snapshots inside a round, from which `spo train --resume` goes on; finished policies are always kept.
    pub checkpoints: Option<CheckpointSpec>,
    /// How several processes share the run.
    pub parallel: Option<ParallelSpec>,
    /// Where a run is also told, beside the files of its directory.
    pub track: Option<TrackSpec>,
}

impl RunSpec {
    /// Reads a run file. Relative paths in it are relative to its directory.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has an unknown key, a wrong value or a missing key.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::from_text_of(&path.to_string_lossy(), path, &text)
    }

    /// Reads the text that the run file at `path` has, or had; `name` stands for it in messages.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub fn from_text_of(name: &str, path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::of(name, Some(path), text, Known::builtin().clone())
    }

    /// Reads a run file from memory; `name` stands for the file in messages. Relative paths stay as they are.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    #[allow(clippy::should_implement_trait)]
    pub fn from_str(name: &str, text: &str) -> Result<Self, ConfigError> {
        Self::of(name, None, text, Known::builtin().clone())
    }

    /// Reads the text that the run file at `path`, if there is one, has or had, and that may name what the registries
    /// hold: with [`from_text_of`](Self::from_text_of) and [`from_str`](Self::from_str) it may name what the libraries
    /// of this workspace hold.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub fn parse(name: &str, path: Option<&Path>, text: &str, registries: Registries) -> Result<Self, ConfigError> {
        Self::of(name, path, text, Known::new(registries))
    }

    fn of(name: &str, path: Option<&Path>, text: &str, known: Arc<Known>) -> Result<Self, ConfigError> {
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
        };
        let path = path.map(absolute).transpose()?;
        let mut document = Document::parse(name, text)?;
        if let Some(directory) = path.as_deref().and_then(Path::parent) {
            document.anchor_paths(directory);
        }
        let source = Source { name: name.to_owned(), path, text: text.to_owned(), arguments: vec![] };
        Self::from_document(document, source, known)
    }

    /// Changes one value: `rounds.1.lambda=0.5`. Numbers in the path count from 0; the value is TOML or a bare string. Relative
    /// paths of data and model are relative to the working directory.
    ///
    /// # Errors
    /// The path leads nowhere, or the changed run file is not well-formed; the specification is then unchanged.
    pub fn apply_set(&mut self, argument: &str) -> Result<(), ConfigError> {
        self.apply(&Argument { text: argument.to_owned(), directory: std::env::current_dir().ok() })
    }

    /// As [`apply_set`](Self::apply_set), with paths relative to the argument's directory.
    ///
    /// # Errors
    /// As [`apply_set`](Self::apply_set).
    pub fn apply(&mut self, argument: &Argument) -> Result<(), ConfigError> {
        let mut document = self.document.clone();
        document.set(&argument.text)?;
        if let Some(directory) = &argument.directory {
            document.anchor_arguments(directory);
        }
        let mut source = self.source.clone();
        source.arguments.push(argument.clone());
        let pins = std::mem::take(&mut self.pins);
        *self = Self { pins, ..Self::from_document(document, source, self.known.clone())? };
        Ok(())
    }

    /// Takes names of the Hub at the commits that an earlier reading found, wherever their branches are by now.
    pub fn pin(&mut self, pins: &[Located]) {
        self.pins = pins.to_vec();
    }

    /// The commits to take names of the Hub at.
    pub fn pins(&self) -> &[Located] {
        &self.pins
    }

    /// The run file with names of the Hub replaced by what `local` gives for a key and its value: the paths of files.
    ///
    /// # Errors
    /// Those of `local`, and where a run file cannot have what it gives.
    pub fn with_local<E: From<ConfigError>>(
        &self,
        mut local: impl FnMut(&str, &str) -> Result<Option<Vec<String>>, E>,
    ) -> Result<Self, E> {
        let (mut document, mut failed) = (self.document.clone(), Ok(()));
        document.visit_sources(&mut |key, node| {
            let Content::String(text) = &node.content else { return };
            if failed.is_err() {
                return;
            }
            match local(key, text) {
                Ok(None) => {}
                Ok(Some(paths)) => node.content = content_of(paths, node),
                Err(error) => failed = Err(error),
            }
        });
        failed?;
        let spec = Self::from_document(document, self.source.clone(), self.known.clone())?;
        Ok(Self { pins: self.pins.clone(), ..spec })
    }

    /// What the file says, typed.
    pub fn sections(&self) -> &RunSections {
        &self.sections
    }

    /// Where it came from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What it may name.
    pub fn registries(&self) -> &Registries {
        &self.known.registries
    }

    /// The run's name: the key, or the file's name without its ending.
    pub fn name(&self) -> String {
        let stem = || {
            let stem = Path::new(&self.document.name).file_stem();
            stem.map_or_else(|| "run".to_owned(), |stem| stem.to_string_lossy().into_owned())
        };
        self.sections.name.clone().unwrap_or_else(stem)
    }

    /// The run directory: the key, or `runs/` and the run's name.
    pub fn out(&self) -> PathBuf {
        self.sections.out.clone().unwrap_or_else(|| Path::new("runs").join(self.name()))
    }

    /// The fault of the value of a dotted key, or of its section where the key is absent.
    pub(crate) fn refused(&self, key: &str, message: String, hint: Option<String>) -> ConfigError {
        let mut node = &self.document.root;
        for name in key.split('.') {
            node = node.get(name).unwrap_or(node);
        }
        ConfigError::Refused { at: self.document.place(&node.source), key: key.to_owned(), message, hint }
    }

    fn from_document(mut document: Document, source: Source, known: Arc<Known>) -> Result<Self, ConfigError> {
        migrate(&mut document)?;
        validate(&document, &known.schema)?;
        let sections = serde_json::from_value(document.root.to_json()).map_err(|error| {
            // The schema has admitted every key, so only a section's own reader can refuse here.
            ConfigError::Refused {
                at: document.place(&document.root.source),
                key: document.name.clone(),
                message: error.to_string(),
                hint: None,
            }
        })?;
        Ok(Self { document, sections, source, known, pins: vec![] })
    }
}

/// One path as a text, several as a list.
fn content_of(mut paths: Vec<String>, node: &Node) -> Content {
    match paths.len() {
        1 => Content::String(paths.remove(0)),
        _ => Content::Array(
            paths
                .into_iter()
                .map(|path| Node { source: node.source.clone(), content: Content::String(path) })
                .collect(),
        ),
    }
}
