//! How checkpoints of reward models name and store their score head.

use super::{Normalisation, Pooling, RewardModel, SCORE, ScoreHead};
use crate::family::{Config, Registry};
use crate::load::{Checkpoint, CheckpointSource, LoadOptions};
use crate::{CausalLm, ModelError, ModelSpec};
use burn::module::Param;
use burn::tensor::{Device, Tensor};
use serde_json::Value;
use spo_data::gguf::is_gguf;
use std::path::{Path, PathBuf};

/// How transformers' classes with a score head end.
const CLASS: &str = "ForSequenceClassification";
/// The head's weights where they stand beside a causal language model.
const VALUE_HEAD: &str = "value_head.safetensors";

/// What a checkpoint's files say of its head.
#[derive(Debug)]
struct HeadFiles {
    /// Names of weight and, where there is one, bias.
    weight: String,
    bias: Option<String>,
    labels: usize,
    pooling: Pooling,
    normalisation: Option<Normalisation>,
    /// A file of its own.
    beside: Option<PathBuf>,
}

/// Whether a directory's files say that it has a score head.
///
/// # Errors
/// `config.json` cannot be read.
pub fn is_reward_model(dir: &Path) -> Result<bool, ModelError> {
    if is_gguf(dir) || !dir.join("config.json").exists() {
        return Ok(false);
    }
    let config = read_config(dir)?;
    Ok(has_class(&config) || config.has("value_head_prefix") || dir.join(VALUE_HEAD).exists())
}

/// Refuses a checkpoint that has a score head in the place of a head for tokens.
pub(crate) fn refuse_reward_model(dir: &Path) -> Result<(), ModelError> {
    match has_class(&read_config(dir)?) {
        true => Err(ModelError::OnlyScores { dir: dir.into() }),
        false => Ok(()),
    }
}

fn has_class(config: &Config) -> bool {
    let class = config.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
    class.is_some_and(|class| class.ends_with(CLASS))
}

fn read_config(dir: &Path) -> Result<Config, ModelError> {
    let path = dir.join("config.json");
    if !path.exists() {
        return Err(ModelError::MissingFile { dir: dir.into(), file: "config.json".into() });
    }
    let text = std::fs::read_to_string(&path).map_err(|e| ModelError::io(&path, e))?;
    Config::parse(&path.display().to_string(), &text)
}

impl Registry {
    /// Loads a reward model; its reward is label 0.
    ///
    /// # Errors
    /// As [`open`](Self::open); the directory has no score head.
    pub fn open_reward(&self, dir: &Path, options: LoadOptions, device: &Device) -> Result<RewardModel, ModelError> {
        if is_gguf(dir) {
            let reason = "GGUF files hold no score head that is known here; name the model's directory".into();
            return Err(ModelError::Reward { dir: dir.into(), reason });
        }
        let (config, mut spec) = (read_config(dir)?, self.spec(dir)?);
        let checkpoint = Checkpoint::open(dir)?;
        let head = HeadFiles::of(dir, &config, &spec, &checkpoint)?;
        // Without a head for tokens the embedding's table stands in its place, and nothing asks for it.
        let own_head = checkpoint.names().contains(&spec.layout.name("lm_head.weight"));
        let writes = spec.tied || own_head;
        spec.tied |= !own_head;
        let mut source = checkpoint.source(spec.layout, options, device);
        let mut model = CausalLm::load(&spec, &mut source)?;
        model.score = Some(match &head.beside {
            None => head.read(&mut source, spec.hidden_size)?,
            Some(file) => {
                let checkpoint = Checkpoint::open_file(file)?;
                let mut source = checkpoint.source(spec.layout, options, device);
                let score = head.read(&mut source, spec.hidden_size)?;
                source.finish(&spec)?;
                score
            }
        });
        source.finish(&spec)?;
        Ok(RewardModel { model, label: 0, normalisation: head.normalisation, writes })
    }
}

impl HeadFiles {
    fn of(dir: &Path, config: &Config, spec: &ModelSpec, checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let plain = |weight: &str| Self {
            weight: weight.into(),
            bias: None,
            labels: 1,
            pooling: Pooling::Last,
            normalisation: None,
            beside: None,
        };
        let names = checkpoint.names();
        let of_rlhf = match (config.has("value_head_prefix"), has_class(config)) {
            (true, _) => Some(format!("{}.weight", config.string("value_head_prefix")?)),
            // Older files do not name it.
            (false, false) => {
                ["value_head.weight", SCORE].map(String::from).into_iter().find(|name| names.contains(name))
            }
            (false, true) => None,
        };
        if let Some(weight) = of_rlhf {
            return Ok(Self { normalisation: normalisation(config)?, ..plain(&weight) });
        }
        let beside = dir.join(VALUE_HEAD);
        if has_class(config) {
            return Ok(Self { labels: labels(config)?, pooling: pooling(config, spec)?, ..plain(SCORE) });
        }
        if beside.exists() {
            let bias = Some("v_head.summary.bias".into());
            return Ok(Self { bias, beside: Some(beside), ..plain("v_head.summary.weight") });
        }
        if dir.join("value_head.bin").exists() {
            return Err(ModelError::Pickle { dir: dir.into(), files: vec!["value_head.bin".into()] });
        }
        let reason = format!(
            "it has no score head: neither a class {CLASS} in config.json, nor value_head_prefix, nor {VALUE_HEAD}"
        );
        Err(ModelError::Reward { dir: dir.into(), reason })
    }

    fn read(&self, source: &mut CheckpointSource, hidden: usize) -> Result<ScoreHead, ModelError> {
        let weight: Tensor<2> = source.named_tensor(&self.weight, [self.labels, hidden])?;
        let bias = match &self.bias {
            Some(name) => Some(Param::from_tensor(source.named_tensor(name, [self.labels])?)),
            None => None,
        };
        Ok(ScoreHead { weight: Param::from_tensor(weight), bias, pooling: self.pooling, critic: None })
    }
}

/// Labels of the head: `id2label`, or `num_labels`, or 2 as in transformers where neither is written.
fn labels(config: &Config) -> Result<usize, ModelError> {
    match config.get("id2label") {
        Some(Value::Object(labels)) if !labels.is_empty() => Ok(labels.len()),
        Some(other) => Err(config.error("id2label", &other.to_string(), "a table of at least one label")),
        None => config.count_or("num_labels", 2),
    }
}

/// Where the head reads. A configuration that does not name its padding token has that of its class in transformers;
/// one that says null has none.
fn pooling(config: &Config, spec: &ModelSpec) -> Result<Pooling, ModelError> {
    let of_class = match spec.family {
        "gemma" | "gemma2" | "gemma3_text" => Some(0),
        "phi3" => Some(32_000),
        "hunyuan_v1_dense" => Some(0),
        "olmo2" | "olmo3" | "seed_oss" => Some(1),
        "ministral3" => Some(11),
        "glm4" => Some(151_329),
        "smollm3" => Some(128_004),
        _ => None,
    };
    let pad = match config.get("pad_token_id") {
        None if config.names("pad_token_id") => None,
        None => of_class,
        Some(value) => {
            let id = value.as_i64().and_then(|id| i32::try_from(id).ok());
            let id = id.ok_or_else(|| config.error("pad_token_id", &value.to_string(), "a token id or null"))?;
            // A negative id is that of no token.
            u32::try_from(id).ok()
        }
    };
    Ok(pad.map_or(Pooling::Last, Pooling::BeforePads))
}

/// OpenRLHF's `mean` and `std`.
fn normalisation(config: &Config) -> Result<Option<Normalisation>, ModelError> {
    if !config.has("mean") || !config.has("std") {
        return Ok(None);
    }
    let (mean, std) = (config.number("mean")?, config.number("std")?);
    match std > 0.0 {
        true => Ok(Some(Normalisation { mean, std })),
        false => Err(config.error("std", &std.to_string(), "a number above 0")),
    }
}
