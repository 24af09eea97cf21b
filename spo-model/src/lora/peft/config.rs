//! `adapter_config.json`.

use crate::layout::Layout;
use crate::lora::targets::module_path;
use crate::lora::{LoraSpec, SavedModules, Targets};
use crate::{ModelError, ModelSpec};
use regex_lite::Regex;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Options of PEFT that change the computation and are not implemented.
const UNSUPPORTED: [&str; 14] = [
    "lora_bias",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "loftq_config",
    "ensure_weight_tying",
    "megatron_config",
];

/// Ways of initialising that also change the base, so that an adapter saved with them needs another.
const CHANGED_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// What an adapter's configuration says.
pub struct AdapterConfig {
    /// Rank, scale and targets of most layers.
    pub spec: LoraSpec,
    /// Names of modules that the file has whole, each the end of a module's path.
    pub modules_to_save: Vec<String>,
    file: String,
    /// Modules that are left out although they are targets.
    excluded: Option<Targets>,
    /// The only blocks that count, where not all do.
    layers: Option<Vec<usize>>,
    /// Other ranks, by expressions for the ends of module paths.
    ranks: Vec<(Regex, f64)>,
    /// Other numerators of the scale.
    alphas: Vec<(Regex, f64)>,
}

impl AdapterConfig {
    /// Reads it.
    ///
    /// # Errors
    /// Not JSON, not LoRA, a rank or alpha that is no number above 0, an option that changes the
    /// computation and is not implemented.
    pub fn read(path: &Path, layout: &Layout) -> Result<Self, ModelError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| ModelError::io(path, e))?;
        let config: Value =
            serde_json::from_str(&text).map_err(|e| ModelError::Json { file: file.clone(), reason: e.to_string() })?;
        let parsed = Self::parse(&config, layout, file.clone());
        parsed.map_err(|reason| ModelError::Adapter { file, reason })
    }

    fn parse(config: &Value, layout: &Layout, file: String) -> Result<Self, String> {
        if config["peft_type"] != "LORA" {
            return Err(format!("peft_type: found {}, expected \"LORA\"", config["peft_type"]));
        }
        if let Some(key) = UNSUPPORTED.into_iter().find(|key| active(&config[*key])) {
            return Err(format!("{key}: found {}, which is not supported", config[key]));
        }
        // True where PEFT found weights stored [in, out]; it changes how they are merged, no adapter.
        if config["fan_in_fan_out"] == true && !layout.conv1d {
            return Err("fan_in_fan_out: found true, which fits no layer of this model".into());
        }
        if !matches!(config["bias"].as_str(), None | Some("none")) {
            return Err(format!("bias: found {}, expected \"none\"", config["bias"]));
        }
        let init = config["init_lora_weights"].as_str().unwrap_or_default();
        if CHANGED_BASE.iter().any(|name| init.starts_with(name)) {
            return Err(format!("init_lora_weights: `{init}` changes the base; save the adapter as plain LoRA"));
        }
        let rank = config["r"].as_u64().filter(|rank| *rank > 0);
        let (Some(rank), Some(alpha)) = (rank, config["lora_alpha"].as_f64()) else {
            return Err("r and lora_alpha must be numbers above 0".into());
        };
        let targets = match &config["target_modules"] {
            Value::String(all) if all == "all-linear" => Targets::AllLinear,
            other => modules(other, "target_modules")?.unwrap_or(Targets::AllLinear),
        };
        let layers = match &config["layers_to_transform"] {
            Value::Null => None,
            one @ Value::Number(_) => Some(numbers(std::slice::from_ref(one))?),
            Value::Array(several) => Some(numbers(several)?),
            other => return Err(format!("layers_to_transform: found {other}, expected numbers of blocks")),
        };
        Ok(Self {
            spec: LoraSpec {
                rank: rank as usize,
                alpha,
                rslora: config["use_rslora"] == true,
                dora: config["use_dora"] == true,
                dropout: config["lora_dropout"].as_f64().unwrap_or(0.0),
                targets,
                saved: SavedModules::default(),
                front: None,
            },
            modules_to_save: config["modules_to_save"].as_array().into_iter().flatten().filter_map(text).collect(),
            excluded: modules(&config["exclude_modules"], "exclude_modules")?,
            layers,
            file,
            ranks: patterns(config, "rank_pattern")?,
            alphas: patterns(config, "alpha_pattern")?,
        })
    }

    /// Paths of the projections that the configuration gives an adapter. Of several names PEFT wants one to be there.
    ///
    /// # Errors
    /// None is.
    pub fn adapted(&self, spec: &ModelSpec) -> Result<Vec<String>, ModelError> {
        let chosen = self.spec.targets.matching(spec).map_err(|reason| self.refuse(reason))?;
        let excluded = self.excluded.as_ref().map_or(Ok(vec![]), |excluded| excluded.matching(spec));
        let excluded = excluded.map_err(|reason| self.refuse(reason))?;
        let block = |path: &str| path.split('.').nth(1).and_then(|block| block.parse::<usize>().ok());
        let counts = |path: &String| match (&self.layers, block(path)) {
            (Some(layers), Some(block)) => layers.contains(&block),
            _ => true,
        };
        let chosen: Vec<String> = chosen.into_iter().filter(|path| !excluded.contains(path)).filter(counts).collect();
        match chosen.is_empty() {
            true => Err(self.refuse("target_modules: no linear layer of the model's blocks is called so".into())),
            false => Ok(chosen),
        }
    }

    /// Whether the module at this path of the checkpoint's is one of [`modules_to_save`](Self::modules_to_save).
    pub fn saves(&self, path: &str) -> bool {
        self.modules_to_save.iter().any(|name| path.ends_with(name.as_str()))
    }

    /// What is wrong with the file.
    pub fn refuse(&self, reason: String) -> ModelError {
        ModelError::Adapter { file: self.file.clone(), reason }
    }

    /// Rank and scale of the layer at this module path of PEFT's.
    pub fn rank_and_scale(&self, path: &str) -> (usize, f64) {
        let find = |patterns: &[(Regex, f64)]| patterns.iter().find(|(p, _)| p.is_match(path)).map(|(_, n)| *n);
        let rank = find(&self.ranks).map_or(self.spec.rank, |rank| rank as usize);
        let alpha = find(&self.alphas).unwrap_or(self.spec.alpha);
        (rank, LoraSpec { rank, alpha, ..self.spec.clone() }.scale())
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(String::from)
}

/// A list of names or an expression, as `target_modules` has it.
fn modules(value: &Value, key: &str) -> Result<Option<Targets>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(pattern) => Ok(Some(Targets::Pattern(pattern.clone()))),
        Value::Array(names) => Ok(Some(Targets::Names(names.iter().filter_map(text).collect()))),
        other => Err(format!("{key}: found {other}, expected names or an expression")),
    }
}

fn numbers(values: &[Value]) -> Result<Vec<usize>, String> {
    let number = |value: &Value| value.as_u64().map(|number| number as usize);
    let numbers = values.iter().map(number).collect::<Option<_>>();
    numbers.ok_or_else(|| "layers_to_transform: expected numbers of blocks".into())
}

/// A value that switches something on.
fn active(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

/// The numbers of `rank_pattern` or `alpha_pattern`, each with PEFT's expression for its layers.
fn patterns(config: &Value, key: &str) -> Result<Vec<(Regex, f64)>, String> {
    let none = Map::new();
    let entries = config[key].as_object().unwrap_or(&none);
    let pattern = |(name, number): (&String, &Value)| {
        let expression = Regex::new(&format!(r"^(?:(?:.*\.)?(?:{name}))$")).map_err(|e| format!("{key}: {e}"))?;
        let number = number.as_f64().filter(|number| *number > 0.0);
        Ok((expression, number.ok_or_else(|| format!("{key}: {name}: found no number above 0"))?))
    };
    entries.iter().map(pattern).collect()
}

/// The configuration of adapters on these layers: path, rank and scale of each.
pub fn write(model: &ModelSpec, spec: &LoraSpec, layers: &[(String, usize, f64)], base: &str) -> Value {
    let rank = layers.first().map_or(spec.rank, |(_, rank, _)| *rank);
    let whole = spec.with_rank(rank);
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for (path, rank, scale) in layers {
        if *rank != whole.rank {
            ranks.insert(module_path(model.layout, path), json!(rank));
        }
        let alpha = scale * if whole.rslora { (*rank as f64).sqrt() } else { *rank as f64 };
        if (alpha - whole.alpha).abs() > 1e-9 * alpha {
            alphas.insert(module_path(model.layout, path), json!(alpha));
        }
    }
    json!({
        "peft_type": "LORA",
        "task_type": if spec.saved.contains("score.weight") { "SEQ_CLS" } else { "CAUSAL_LM" },
        "base_model_name_or_path": base,
        "r": whole.rank,
        "lora_alpha": whole_number(whole.alpha),
        "use_rslora": whole.rslora,
        "use_dora": whole.dora,
        "lora_dropout": whole.dropout,
        "bias": "none",
        "fan_in_fan_out": model.layout.conv1d,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": (!spec.saved.is_empty()).then(|| spec.saved.names(model)),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": target_modules(model, layers),
    })
}

/// PEFT declares `lora_alpha` a whole number.
fn whole_number(alpha: f64) -> Value {
    if alpha.fract() == 0.0 { json!(alpha as i64) } else { json!(alpha) }
}

/// The last names of the layers if no other layer is called so, else their whole paths.
fn target_modules(model: &ModelSpec, layers: &[(String, usize, f64)]) -> Vec<String> {
    let mut names: Vec<String> = layers.iter().map(|(path, ..)| model.layout.last_name(path)).collect();
    names.sort();
    names.dedup();
    match Targets::Names(names.clone()).select(model) {
        Ok(paths) if paths.len() == layers.len() => names,
        _ => layers.iter().map(|(path, ..)| module_path(model.layout, path)).collect(),
    }
}
