//! Adapters in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`.

mod config;
mod names;

use super::{Condition, LoraAdapter, LoraSpec, SavedModules, front, is_adapter, projections};
use crate::export::{create_dir, write_file, write_safetensors};
use crate::load::Checkpoint;
use crate::parameters::{for_each, replace};
use crate::steering::{SavedZ, WEIGHTS as STEERING, films_beside, load_beside, save_beside};
use crate::{CausalLm, ModelError};
use burn::tensor::{DType, Tensor};
use config::AdapterConfig;
use names::{Tensors, peft_name};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Attaches the adapter saved in `dir` to a model, replacing any it has, and takes over the modules
/// that were trained in full. A conditional adapter, which has files of its own, acts at equal weights.
///
/// # Errors
/// Missing or damaged files, options of PEFT that change the computation and are not
/// implemented, tensors that fit no projection.
pub fn load_adapter(model: CausalLm, dir: &Path) -> Result<(CausalLm, LoraSpec), ModelError> {
    let dtype = model.dtype();
    load(model, dir, dtype, None)
}

/// [`load_adapter`] for training it as `spec` says, whose dropout counts and not the file's.
///
/// # Errors
/// As [`load_adapter`]; the adapter has other layers, ranks, scales or modules than `spec` gives.
pub fn load_adapter_as(model: CausalLm, dir: &Path, spec: &LoraSpec) -> Result<CausalLm, ModelError> {
    let (expected, dtype) = (shapes(model.clone().with_lora(spec, 0)?), model.dtype());
    let (model, found) = load(model, dir, dtype, Some(spec.dropout))?;
    let refuse = |reason| Err(ModelError::Adapter { file: dir.join(CONFIG).display().to_string(), reason });
    let shapes = shapes(model.clone());
    let layers: BTreeSet<&String> = shapes.keys().chain(expected.keys()).collect();
    let words =
        |shapes: &BTreeMap<_, String>, path| shapes.get(path).map_or_else(|| "no adapter".to_owned(), String::clone);
    if let Some(path) = layers.into_iter().find(|path| shapes.get(*path) != expected.get(*path)) {
        return refuse(format!("{path}: found {}, expected {}", words(&shapes, path), words(&expected, path)));
    }
    if found.front != spec.front {
        let names = |spec: &LoraSpec| match spec.front.as_ref().map(|front| &front.condition) {
            None => "none".into(),
            Some(Condition::Weights(dimensions)) => dimensions.join(", "),
            Some(Condition::Contexts(_)) => "contexts".into(),
        };
        return refuse(format!("conditioned on {}, expected {}", names(&found), names(spec)));
    }
    if found.saved != spec.saved {
        let names = |spec: &LoraSpec| spec.saved.names(model.spec()).join(", ");
        return refuse(format!("modules_to_save: found [{}], expected [{}]", names(&found), names(spec)));
    }
    Ok(model)
}

/// What the adapter of each layer is, in words.
fn shapes(mut model: CausalLm) -> BTreeMap<String, String> {
    let shape = |lora: &LoraAdapter| {
        let kind = if lora.magnitude.is_some() { "DoRA" } else { "LoRA" };
        let core = lora.core.as_ref().map(|core| [core.shared.val().dims(), core.weighed.val().dims()]);
        let core = core.map_or_else(String::new, |core| format!(" with a core of shapes {core:?}"));
        format!("{kind} of rank {} and scale {}{core}", lora.rank(), lora.scale())
    };
    let layers = projections(&mut model).into_iter();
    layers.filter_map(|(path, linear)| Some((path, shape(linear.lora.as_ref()?)))).collect()
}

/// The model with the adapter saved in `dir` folded into its weights: added in f32, whatever their type,
/// and rounded to it once.
///
/// # Errors
/// As [`load_adapter`]; the policy is one for many users, and nobody says for whom.
pub fn merge_adapter(model: CausalLm, dir: &Path) -> Result<CausalLm, ModelError> {
    if dir.join(STEERING).exists() {
        return Err(match films_beside(dir)? {
            true => films_stay(dir),
            false => ModelError::Steering {
                file: dir.join(STEERING),
                reason: "it is a policy for many users, which is merged for one of them: --steer FILE says for whom, \
                         and `--format peft` without it writes the adapter with all that steers it"
                    .into(),
            },
        });
    }
    Ok(load(model, dir, DType::F32, None)?.0.merged())
}

/// [`merge_adapter`] of a policy for many users as it is for the one of a file of `spo steer`.
///
/// # Errors
/// As [`load_adapter_for`].
pub fn merge_adapter_for(model: CausalLm, dir: &Path, user: &Path) -> Result<CausalLm, ModelError> {
    Ok(load_for(model, dir, DType::F32, user)?.0.merged())
}

/// [`load_adapter`] of a policy for many users as the plain adapter that it is for the one of a file of `spo steer`.
///
/// # Errors
/// As [`load_adapter`] and [`SavedZ::steer`]; films scale and shift the blocks' outputs, which no adapter does.
pub fn load_adapter_for(model: CausalLm, dir: &Path, user: &Path) -> Result<(CausalLm, LoraSpec), ModelError> {
    let dtype = model.dtype();
    load_for(model, dir, dtype, user)
}

fn load_for(model: CausalLm, dir: &Path, dtype: DType, user: &Path) -> Result<(CausalLm, LoraSpec), ModelError> {
    let (model, spec) = load(model, dir, dtype, None)?;
    let steered = SavedZ::read(user)?.steer(model, dir, user)?;
    Ok((steered.settled().ok_or_else(|| films_stay(dir))?, spec.at_point()))
}

fn films_stay(dir: &Path) -> ModelError {
    let reason = "it scales and shifts every block's output by the user, which cannot be merged into the weights; \
                  `spo export --format peft` writes it with all that steers it, for --adapter and --steer; a run with \
                  `films = false` can be merged"
        .into();
    ModelError::Steering { file: dir.join(STEERING), reason }
}

/// [`merge_adapter`] of a conditional adapter at these weights.
///
/// # Errors
/// As [`load_adapter`].
pub fn merge_adapter_at(model: CausalLm, dir: &Path, weights: &[f64]) -> Result<CausalLm, ModelError> {
    Ok(load(model, dir, DType::F32, None)?.0.with_weights(weights).merged())
}

/// [`load_adapter`] with the adapters' numbers in this type, and this dropout if one is given.
fn load(model: CausalLm, dir: &Path, dtype: DType, dropout: Option<f64>) -> Result<(CausalLm, LoraSpec), ModelError> {
    if front::front_of(dir)?.is_some() {
        return front::load(model, dir, dtype, dropout);
    }
    let (layout, config) = (model.spec().layout, dir.join(CONFIG));
    if !config.exists() {
        return Err(ModelError::MissingFile { dir: dir.into(), file: CONFIG.into() });
    }
    let mut config = AdapterConfig::read(&config, layout)?;
    config.spec.dropout = dropout.unwrap_or(config.spec.dropout);
    let path = weights(dir)?;
    let checkpoint = Checkpoint::open_file(&path)?;
    let mut tensors = Tensors::of(&checkpoint, &path)?;
    if model.spec().tied {
        tensors.take_tied_head(&checkpoint, &config, layout)?;
    }
    let mut model = model.without_lora();
    let (device, adapted) = (model.device(), BTreeSet::from_iter(config.adapted(model.spec())?));
    for (path, linear) in projections(&mut model).into_iter().filter(|(path, _)| adapted.contains(path)) {
        let (rank, scale) = config.rank_and_scale(&super::targets::module_path(layout, &path));
        let mut name = |part: &str| tensors.take(&peft_name(layout, &format!("{path}.lora.{part}"))).map(String::from);
        let (a, b, magnitude) = (name("a"), name("b"), if config.spec.dora { name("magnitude") } else { None });
        // What is missing is named below, all at once.
        let (Some(a), Some(b), true) = (a, b, magnitude.is_some() == config.spec.dora) else { continue };
        let [out, inputs] = linear.dims();
        let a: Tensor<2> = checkpoint.require(&a, [rank, inputs], &device)?;
        let b: Tensor<2> = checkpoint.require(&b, [out, rank], &device)?;
        let magnitude = magnitude.map(|name| checkpoint.require::<1>(&name, [out], &device)).transpose()?;
        let lora = LoraAdapter::new(a.cast(dtype), b.cast(dtype), scale);
        linear.attach(&path, &config.spec, lora, magnitude.map(|magnitude| magnitude.cast(dtype)));
    }
    let (saved, model) = take_saved(model, &mut tensors, &checkpoint)?;
    tensors.finish(&config, &model)?;
    let model = load_beside(model, dir)?;
    Ok((model, LoraSpec { saved, ..config.spec }))
}

/// The file of an adapter's tensors.
fn weights(dir: &Path) -> Result<PathBuf, ModelError> {
    let (path, pickle) = (dir.join(WEIGHTS), "adapter_model.bin");
    match (path.exists(), dir.join(pickle).exists()) {
        (true, _) => Ok(path),
        (false, true) => Err(ModelError::Pickle { dir: dir.into(), files: vec![pickle.into()] }),
        (false, false) => Err(ModelError::MissingFile { dir: dir.into(), file: WEIGHTS.into() }),
    }
}

/// The model with those of its modules that the file has whole, and which they are.
fn take_saved(
    model: CausalLm,
    tensors: &mut Tensors,
    checkpoint: &Checkpoint,
) -> Result<(SavedModules, CausalLm), ModelError> {
    let (layout, device) = (model.spec().layout, model.device());
    let (mut saved, mut failed) = (SavedModules::default(), None);
    let model = replace(model, "", |parameter| {
        let name = peft_name(layout, &parameter.path);
        let Some((with, name)) = saved.with(&parameter.path).zip(tensors.take(&name)) else { return parameter.value };
        saved = with;
        match checkpoint.read_flat(name, &parameter.shape, &device) {
            Ok(value) => value.cast(parameter.value.dtype()),
            Err(error) => {
                failed = Some(error);
                parameter.value
            }
        }
    });
    failed.map_or(Ok((saved, model)), Err)
}

/// Saves a model's adapters, and the modules that were trained in full, in PEFT's form; conditional ones in files of their
/// own. A frozen
/// adapter and the trained one above it become one of the sum of their ranks. `base` is what
/// `base_model_name_or_path` will say.
///
/// # Errors
/// The directory or a file cannot be written.
pub fn save_adapter(model: &CausalLm, spec: &LoraSpec, base: &str, dir: &Path) -> Result<(), ModelError> {
    if let Some(front) = &spec.front {
        return front::save(model, spec, front, base, dir);
    }
    create_dir(dir)?;
    let mut model = model.clone().joined();
    let layers: Vec<(String, usize, f64)> = projections(&mut model)
        .into_iter()
        .filter_map(|(path, linear)| linear.lora.as_ref().map(|lora| (path, lora.rank(), lora.scale())))
        .collect();
    let mut tensors = vec![];
    for_each(&model, "", |mut parameter| {
        if is_adapter(&parameter.path) || spec.saved.contains(&parameter.path) {
            parameter.path = peft_name(model.spec().layout, &parameter.path);
            tensors.push(parameter);
        }
    });
    write_safetensors(tensors, &dir.join(WEIGHTS))?;
    save_beside(&model, dir)?;
    let config = config::write(model.spec(), spec, &layers, base);
    write_file(&dir.join(CONFIG), format!("{config:#}\n").as_bytes())
}
