//! Goals of the command line: preferences over dimensions, and the file that says what a model's goals mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use spo_data::PromptText;
use spo_data::goals::{GoalMap, Goals};

use crate::error::CliError;

/// Goals for the answers of a model that was trained with rewards in context.
#[derive(Debug, Args)]
pub(crate) struct GoalArguments {
    /// How much each dimension counts, for a model trained on rows of `spo data goals`: honesty=0.8,helpfulness=0.2
    #[arg(long, value_name = "NAME=W,…", requires = "scale", help_heading = "Goals")]
    goals: Option<String>,
    /// The file that `spo data goals` wrote with the training rows
    #[arg(long, value_name = "FILE", requires = "goals", help_heading = "Goals")]
    scale: Option<PathBuf>,
    /// How weights become goals
    #[arg(long, value_enum, default_value_t = Map::L2, help_heading = "Goals")]
    goal_map: Map,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Map {
    /// By the weights' share of their Euclidean norm
    L2,
    /// The largest weight asks for the most
    Linf,
    /// By the weights' share of their sum
    Linear,
}

/// What is put behind every prompt.
pub(crate) struct Tags {
    goals: Goals,
    values: BTreeMap<String, f64>,
}

impl Tags {
    /// The prompt with the goals.
    pub fn on(&self, prompt: &PromptText) -> PromptText {
        self.goals.tag(prompt, &self.values)
    }
}

impl GoalArguments {
    /// The goals, where there are some.
    pub fn tags(&self) -> Result<Option<Tags>, CliError> {
        let (Some(text), Some(path)) = (&self.goals, &self.scale) else { return Ok(None) };
        let goals = read_goals(path)?;
        let mut weights = BTreeMap::new();
        for part in text.split(',') {
            let expected =
                || format!("NAME=WEIGHT of {}", goals.dimensions.keys().cloned().collect::<Vec<_>>().join(", "));
            let pair =
                part.split_once('=').and_then(|(name, weight)| Some((name.trim(), weight.trim().parse::<f64>().ok()?)));
            let known =
                pair.filter(|(name, weight)| goals.dimensions.contains_key(*name) && (0.0..1e9).contains(weight));
            let (name, weight) = known.ok_or_else(|| CliError::argument("--goals", part, expected()))?;
            weights.insert(name.to_owned(), weight);
        }
        if weights.values().sum::<f64>() <= 0.0 {
            return Err(CliError::argument("--goals", text, "a weight above 0"));
        }
        let map = match self.goal_map {
            Map::L2 => GoalMap::L2,
            Map::Linf => GoalMap::Linf,
            Map::Linear => GoalMap::Linear,
        };
        Ok(Some(Tags { values: goals.mapped(&weights, map), goals }))
    }
}

/// Reads the scales of a model's goals.
pub(crate) fn read_goals(path: &Path) -> Result<Goals, CliError> {
    let text = std::fs::read_to_string(path).map_err(|source| CliError::io(path, source))?;
    serde_json::from_str(&text).map_err(|error| CliError::Unexpected {
        at: path.display().to_string(),
        found: error.to_string(),
        expected: "what `spo data goals` wrote: mean, deviation, low and high by dimension".into(),
        usage: false,
    })
}

pub(crate) fn write_goals(path: &Path, goals: &Goals) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(goals).expect("numbers only") + "\n";
    Ok(spo_train::persist::durable::write(path, text.as_bytes())?)
}

/// Numbers from 0 to 1 that depend on their seed and row alone.
pub(crate) fn uniforms(seed: u64, row: u64, count: usize) -> Vec<f64> {
    let mut bytes = vec![0; 8 * count];
    let mut hasher = blake3::Hasher::new_derive_key("spo goals v1");
    hasher.update(&seed.to_le_bytes()).update(&row.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    let uniform = |bytes: &[u8; 8]| (u64::from_le_bytes(*bytes) >> 11) as f64 / (1u64 << 53) as f64;
    bytes.as_chunks::<8>().0.iter().map(uniform).collect()
}
