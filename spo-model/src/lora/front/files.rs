//! A conditional adapter in its own two files: `front_config.json` and `front_model.safetensors`; beside them what makes its
//! coefficients of contexts, where they do.

use super::{Condition, FrontCore, FrontSpec};
use crate::export::{create_dir, write_file, write_safetensors};
use crate::layout::Layout;
use crate::load::Checkpoint;
use crate::lora::targets::module_path;
use crate::lora::{LoraAdapter, LoraSpec, SavedModules, Targets, is_adapter, projections};
use crate::parameters::for_each;
use crate::steering::{WEIGHTS as STEERING, load_beside, save_beside};
use crate::{CausalLm, ModelError};
use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// Name of the configuration: where it is, an adapter is conditional.
pub const CONFIG: &str = "front_config.json";
const WEIGHTS: &str = "front_model.safetensors";
/// Version of the files.
const VERSION: u32 = 1;

/// `front_config.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    spo_front: u32,
    base_model_name_or_path: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dimensions: Vec<String>,
    /// Matrices that contexts weigh, in the place of `dimensions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    components: Option<usize>,
    shared_rank: usize,
    rank: usize,
    alpha: f64,
    rslora: bool,
    dropout: f64,
    /// Module paths of the checkpoint.
    target_modules: Vec<String>,
}

impl Config {
    fn front(&self) -> FrontSpec {
        let weights = || Condition::Weights(self.dimensions.clone());
        FrontSpec {
            condition: self.components.map_or_else(weights, Condition::Contexts),
            shared_rank: self.shared_rank,
        }
    }

    fn spec(&self) -> LoraSpec {
        LoraSpec {
            rank: self.rank,
            alpha: self.alpha,
            rslora: self.rslora,
            dora: false,
            dropout: self.dropout,
            targets: Targets::Names(self.target_modules.clone()),
            saved: SavedModules::default(),
            front: Some(self.front()),
        }
    }
}

/// What the adapter in `dir` is conditioned on; `None` for a plain one.
///
/// # Errors
/// Its configuration cannot be read.
pub fn front_of(dir: &Path) -> Result<Option<FrontSpec>, ModelError> {
    if !dir.join(CONFIG).is_file() {
        return Ok(None);
    }
    Ok(read(dir)?.spec().front)
}

fn read(dir: &Path) -> Result<Config, ModelError> {
    let path = dir.join(CONFIG);
    let file = path.display().to_string();
    let text = std::fs::read_to_string(&path).map_err(|e| ModelError::io(&path, e))?;
    let config: Config =
        serde_json::from_str(&text).map_err(|e| ModelError::Json { file: file.clone(), reason: e.to_string() })?;
    let refuse = |reason: String| Err(ModelError::Adapter { file: file.clone(), reason });
    if config.spo_front != VERSION {
        return refuse(format!(
            "spo_front: found {}, expected {VERSION}; another version of spo wrote it",
            config.spo_front
        ));
    }
    if config.rank == 0 || config.alpha.is_nan() || config.alpha <= 0.0 {
        return refuse("rank and alpha must be numbers above 0".into());
    }
    config.front().check().map_or(Ok(config), refuse)
}

/// Attaches the conditional adapter in `dir` at equal weights, its numbers in this type.
pub(in crate::lora) fn load(
    model: CausalLm,
    dir: &Path,
    dtype: DType,
    dropout: Option<f64>,
) -> Result<(CausalLm, LoraSpec), ModelError> {
    let config = read(dir)?;
    let mut spec = config.spec();
    spec.dropout = dropout.unwrap_or(spec.dropout);
    let path = dir.join(WEIGHTS);
    if !path.is_file() {
        return Err(ModelError::MissingFile { dir: dir.into(), file: WEIGHTS.into() });
    }
    let checkpoint = Checkpoint::open_file(&path)?;
    let mut unused = checkpoint.names();
    let mut wanted: BTreeSet<&String> = config.target_modules.iter().collect();
    let mut model = model.without_lora();
    let (layout, device) = (model.spec().layout, model.device());
    for (path, linear) in projections(&mut model) {
        if wanted.remove(&module_path(layout, &path)) {
            let mut names = Names { layout, path: &path, unused: &mut unused };
            let lora = adapter(&checkpoint, &mut names, linear.dims(), &spec, (dtype, &device))?;
            linear.attach(&path, &spec, lora, None);
        }
    }
    if let Some(name) = wanted.first() {
        let reason = format!("target_modules: the model has no linear layer `{name}` in its blocks");
        return Err(ModelError::Adapter { file: dir.join(CONFIG).display().to_string(), reason });
    }
    if !unused.is_empty() {
        return Err(ModelError::UnexpectedTensors { path, names: unused.into_iter().collect() });
    }
    if config.components.is_some() && !dir.join(STEERING).is_file() {
        return Err(ModelError::MissingFile { dir: dir.into(), file: STEERING.into() });
    }
    Ok((load_beside(model, dir)?, spec))
}

/// Names of a layer's tensors, each of which counts as used once it was asked for.
struct Names<'a> {
    layout: &'static Layout,
    path: &'a str,
    unused: &'a mut BTreeSet<String>,
}

impl Names<'_> {
    fn take(&mut self, part: &str) -> String {
        let name = self.layout.name(&format!("{}.lora.{part}", self.path));
        self.unused.remove(&name);
        name
    }
}

/// The adapter of a layer of this shape, `[out, in]`.
fn adapter(
    checkpoint: &Checkpoint,
    names: &mut Names,
    [out, inputs]: [usize; 2],
    spec: &LoraSpec,
    (dtype, device): (DType, &Device),
) -> Result<LoraAdapter, ModelError> {
    let front = spec.front.as_ref().expect("this is the file of a front");
    let (total, rank) = (spec.total_rank(), spec.rank);
    let mut tensor = |part: &str, shape: [usize; 2]| {
        let tensor: Tensor<2> = checkpoint.require(&names.take(part), shape, device)?;
        Ok::<_, ModelError>(tensor.cast(dtype))
    };
    let mut lora = LoraAdapter::new(tensor("a", [total, inputs])?, tensor("b", [out, total])?, spec.scale());
    let shared = tensor("core.shared", [front.shared_rank; 2])?;
    lora.core = Some(FrontCore::new(shared, tensor("core.weighed", [front.matrices() * rank, rank])?));
    Ok(lora)
}

/// Saves a model's conditional adapters. `base` is what `base_model_name_or_path` will say.
pub(in crate::lora) fn save(
    model: &CausalLm,
    spec: &LoraSpec,
    front: &FrontSpec,
    base: &str,
    dir: &Path,
) -> Result<(), ModelError> {
    create_dir(dir)?;
    let layout = model.spec().layout;
    let mut adapted = model.clone();
    let layers = projections(&mut adapted).into_iter().filter(|(_, linear)| linear.lora.is_some());
    let target_modules = layers.map(|(path, _)| module_path(layout, &path)).collect();
    let mut tensors = vec![];
    for_each(model, "", |mut parameter| {
        if is_adapter(&parameter.path) {
            parameter.path = layout.name(&parameter.path);
            tensors.push(parameter);
        }
    });
    write_safetensors(tensors, &dir.join(WEIGHTS))?;
    save_beside(model, dir)?;
    let config = Config {
        spo_front: VERSION,
        base_model_name_or_path: base.into(),
        dimensions: front.dimensions().to_vec(),
        components: match front.condition {
            Condition::Weights(_) => None,
            Condition::Contexts(matrices) => Some(matrices),
        },
        shared_rank: front.shared_rank,
        rank: spec.rank,
        alpha: spec.alpha,
        rslora: spec.rslora,
        dropout: spec.dropout,
        target_modules,
    };
    let text = serde_json::to_string_pretty(&config).expect("a configuration holds only strings and numbers");
    write_file(&dir.join(CONFIG), format!("{text}\n").as_bytes())
}
