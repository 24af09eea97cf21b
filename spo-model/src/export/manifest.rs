//! `manifest.json`: what a saved directory is, what it needs, and how it compared when it was read back.

use super::write_file;
use crate::{CausalLm, ModelError, ModelSpec};
use burn::tensor::DType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use spo_core::logprob::HeadOptions;
use spo_data::gguf::is_gguf;
use spo_data::meta::MetaPrompts;
use spo_data::{Example, Group, TextSpec};
use std::path::{Path, PathBuf};

/// Its name in a directory.
const FILE: &str = "manifest.json";
/// Rows that a saved model is compared on.
pub const PROBES: usize = 8;
/// Tokens of them that run through the model at a time.
pub const PROBE_TOKENS: usize = 512;

/// Rows of answers, each with its prompt.
#[derive(Debug, Clone, Default)]
pub struct Probe {
    rows: Vec<(Vec<u32>, Vec<Vec<u32>>)>,
}

impl Probe {
    /// The first `PROBES` of these rows.
    pub fn new<'a>(rows: impl Iterator<Item = &'a Example>) -> Self {
        let answers = |row: &Example| row.answers.iter().map(|answer| answer.to_vec()).collect();
        Self { rows: rows.take(PROBES).map(|row| (row.prompt.to_vec(), answers(row))).collect() }
    }

    /// Pairs of random tokens, for a model without a tokenizer.
    pub fn random(spec: &ModelSpec) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let length = (spec.context / 2).clamp(1, 16);
        let mut tokens = || (0..length).map(|_| rng.random_range(0..spec.vocab_size as u32)).collect::<Vec<u32>>();
        Self { rows: (0..PROBES).map(|_| (tokens(), vec![tokens(), tokens()])).collect() }
    }

    /// Sequence log-probs of the answers, in nats; of a reward model their rewards.
    pub fn score(&self, model: &CausalLm) -> Vec<f64> {
        let groups: Vec<Group> = self
            .rows
            .iter()
            .map(|(prompt, answers)| Group { prompt, answers: answers.iter().map(Vec::as_slice).collect() })
            .collect();
        if model.score.is_some() {
            return model.rewards(&groups, 0, PROBE_TOKENS, &mut |_| ()).concat();
        }
        let scored = model.score(&groups, PROBE_TOKENS, &HeadOptions::default(), &mut |_| ());
        scored.iter().flatten().map(|logps| logps.iter().map(|logp| f64::from(*logp)).sum()).collect()
    }
}

/// How the log-probs of a saved model differ from those it had in memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Parity {
    /// Rows compared.
    pub rows: usize,
    /// Answers compared.
    pub sequences: usize,
    /// Largest difference of a sequence log-prob, in nats.
    pub largest_difference: f64,
    /// What was allowed.
    pub allowed: f64,
}

impl Parity {
    /// Compares log-probs of the probe's answers.
    ///
    /// # Errors
    /// [`ModelError::Parity`] when they differ by more than `allowed`, or are not numbers; `saved` is
    /// what was written.
    pub fn check(probe: &Probe, before: &[f64], after: &[f64], allowed: f64, saved: &Path) -> Result<Self, ModelError> {
        let largest_difference = largest_difference(before, after);
        // A difference that is not a number is not within anything.
        if largest_difference <= allowed {
            Ok(Self { rows: probe.rows.len(), sequences: before.len(), largest_difference, allowed })
        } else {
            Err(ModelError::Parity { path: saved.into(), drift: largest_difference, allowed })
        }
    }
}

/// The largest difference of two lists; NaN if there is one.
pub fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |largest, x| if x <= largest { largest } else { x })
}

/// What rounding in this type may change in these log-probs, in nats.
pub fn rounding(dtype: DType, logps: &[f64]) -> f64 {
    let scale = logps.iter().fold(1.0, |scale, logp: &f64| logp.abs().max(scale));
    if dtype == DType::F32 { 1e-4 * scale } else { 2e-2 * scale }
}

/// What a saved directory is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Manifest {
    /// Version of the program that wrote it.
    pub spo: &'static str,
    /// `peft`, `hf` or `gguf`.
    pub format: &'static str,
    /// Number format of the weights.
    pub dtype: String,
    /// Name of the policy in its run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Hash of the weights, as log-probs are stored under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// How text was laid out when it was trained: commands that take the directory lay it out alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<TextSpec>,
    /// The meta-prompts that it was trained with: where they stand, and what asks for each dimension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_prompts: Option<MetaPrompts>,
    /// The model that an adapter is for, or was merged into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// The adapter that was merged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merged_adapter: Option<String>,
    /// Written model against the one in memory.
    pub parity: Parity,
    /// How far the log-probs under a quantised base, which the adapter was trained on, are from those
    /// under the base itself, in nats per sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantisation_difference: Option<f64>,
}

/// The model that an adapter belongs to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Base {
    /// Its directory. An adapter of spo needs this model and no other adapter.
    pub path: String,
    /// How it was kept in memory while the adapter was trained, where that was quantised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantised: Option<&'static str>,
}

impl Manifest {
    /// A manifest with what every format has.
    pub fn new(format: &'static str, dtype: String, parity: Parity) -> Self {
        Self {
            spo: env!("CARGO_PKG_VERSION"),
            format,
            dtype,
            policy: None,
            hash: None,
            text: None,
            meta_prompts: None,
            base: None,
            merged_adapter: None,
            parity,
            quantisation_difference: None,
        }
    }

    /// Writes `manifest.json` into `dir`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), ModelError> {
        let text = serde_json::to_string_pretty(self).expect("strings and numbers");
        write_file(&dir.join(FILE), format!("{text}\n").as_bytes())
    }

    /// How text is laid out for the model or adapter in a directory, or for a GGUF file, where the manifest in the
    /// directory or beside the file says so.
    ///
    /// # Errors
    /// There is a manifest of this program, and it cannot be read.
    pub fn text_of(model: &Path) -> Result<Option<TextSpec>, ModelError> {
        Self::part_of(model, "text")
    }

    /// The meta-prompts that the model or adapter was trained with, as [`text_of`](Self::text_of).
    ///
    /// # Errors
    /// As [`text_of`](Self::text_of).
    pub fn meta_prompts_of(model: &Path) -> Result<Option<MetaPrompts>, ModelError> {
        Self::part_of(model, "meta-prompts")
    }

    /// The model that the adapter in a directory is for, as [`text_of`](Self::text_of).
    ///
    /// # Errors
    /// As [`text_of`](Self::text_of).
    pub fn base_of(adapter: &Path) -> Result<Option<PathBuf>, ModelError> {
        let base: Option<serde_json::Value> = Self::part_of(adapter, "base")?;
        Ok(base.and_then(|base| base["path"].as_str().map(PathBuf::from)))
    }

    fn part_of<T: DeserializeOwned>(model: &Path, key: &str) -> Result<Option<T>, ModelError> {
        let file = is_gguf(model);
        let dir = if file { model.parent().unwrap_or(model) } else { model };
        let path = dir.join(FILE);
        let json = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ModelError::io(&path, error)),
        };
        let broken =
            |error: serde_json::Error| ModelError::Json { file: path.display().to_string(), reason: error.to_string() };
        let manifest: serde_json::Value = serde_json::from_slice(&json).map_err(broken)?;
        match (manifest.get("spo"), manifest.get(key)) {
            // Of the directory that the file happens to be in.
            _ if file && manifest["format"] != "gguf" => Ok(None),
            (Some(_), Some(part)) => serde_json::from_value(part.clone()).map(Some).map_err(broken),
            // Another program's, or of a version that did not write it.
            _ => Ok(None),
        }
    }
}
