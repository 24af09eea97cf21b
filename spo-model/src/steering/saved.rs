//! Steering on disk: beside an adapter `steering.safetensors` and `steering_config.json`; a user's z in a file of its own.

use super::{Encoder, SteeringSpec, is_steering};
use crate::export::{write_file, write_safetensors};
use crate::load::Checkpoint;
use crate::parameters::{for_each, replace};
use crate::{CausalLm, ModelError};
use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The weights' file in an adapter's directory.
pub const WEIGHTS: &str = "steering.safetensors";
/// Their shape's.
pub const CONFIG: &str = "steering_config.json";
/// Where the encoder stands in a model.
const ENCODER: &str = "steering.encoder.";

/// Saves what steers a model in its adapter's directory; a model without steering has nothing to save.
///
/// # Errors
/// A file cannot be written.
pub fn save_beside(model: &CausalLm, dir: &Path) -> Result<(), ModelError> {
    let Some(steering) = &model.steering else { return Ok(()) };
    let mut tensors = vec![];
    for_each(model, "", |parameter| {
        if is_steering(&parameter.path) {
            tensors.push(parameter);
        }
    });
    write_safetensors(tensors, &dir.join(WEIGHTS))?;
    let config = serde_json::to_string_pretty(&steering.spec()).expect("a shape is numbers");
    write_file(&dir.join(CONFIG), format!("{config}\n").as_bytes())
}

/// What makes z of a user's pairs for the policy in `dir`, apart from the policy; `hidden` is the width of an embedding.
///
/// # Errors
/// A file is missing or damaged, or of another model.
pub fn read_encoder(dir: &Path, hidden: usize, device: &Device) -> Result<Encoder, ModelError> {
    let (spec, checkpoint) = (read_config(&dir.join(CONFIG))?, Checkpoint::open_file(&dir.join(WEIGHTS))?);
    let (fresh, mut failed) = (Encoder::new(&spec.encoder(hidden), 0, device), None);
    let encoder = replace(fresh, ENCODER, |parameter| {
        checkpoint.read_flat(&parameter.path, &parameter.shape, device).unwrap_or_else(|error| {
            failed.get_or_insert(error);
            parameter.value
        })
    });
    failed.map_or(Ok(encoder.cast(DType::F32)), Err)
}

/// The model with the steering that is saved in `dir`, if there is any: for a user of whom nothing is known.
///
/// # Errors
/// A file is damaged, or of another model.
pub fn load_beside(model: CausalLm, dir: &Path) -> Result<CausalLm, ModelError> {
    let (config, weights) = (dir.join(CONFIG), dir.join(WEIGHTS));
    if !config.exists() && !weights.exists() {
        return Ok(model);
    }
    let spec = read_config(&config)?;
    let checkpoint = Checkpoint::open_file(&weights)?;
    let model = model.with_steering(&spec, 0);
    let (device, mut names, mut failed) = (model.device(), checkpoint.names(), None);
    let model = replace(model, "", |parameter| {
        if !is_steering(&parameter.path) {
            return parameter.value;
        }
        names.remove(&parameter.path);
        match checkpoint.read_flat(&parameter.path, &parameter.shape, &device) {
            Ok(value) => value.cast(parameter.value.dtype()),
            Err(error) => {
                failed.get_or_insert(error);
                parameter.value
            }
        }
    });
    match (failed, names.pop_first()) {
        (Some(error), _) => Err(error),
        (None, Some(name)) => {
            Err(ModelError::Steering { file: weights, reason: format!("{name} belongs to no part of this model") })
        }
        (None, None) => Ok(model.unsteered()),
    }
}

/// Whether films stand in `dir`, which no weights of a model hold.
///
/// # Errors
/// The file of the shape is damaged.
pub fn films_beside(dir: &Path) -> Result<bool, ModelError> {
    Ok(dir.join(WEIGHTS).exists() && read_config(&dir.join(CONFIG))?.films)
}

fn read_config(path: &Path) -> Result<SteeringSpec, ModelError> {
    let text = std::fs::read_to_string(path).map_err(|e| ModelError::io(path, e))?;
    let broken = |reason: String| ModelError::Steering { file: path.into(), reason };
    let spec: SteeringSpec = serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
    match spec.heads > 0 && spec.width > 0 && spec.width.is_multiple_of(spec.heads) {
        true => Ok(spec),
        false => Err(broken(format!(
            "found a width of {} and {} heads, expected heads that divide the width",
            spec.width, spec.heads
        ))),
    }
}

/// A user's z.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedZ {
    /// `[width]`
    pub z: Vec<f32>,
    /// Hash of the steering weights that it is for.
    pub policy: String,
    /// Contexts that it was made of.
    pub contexts: usize,
}

/// What a file of z calls its tensor.
const Z: &str = "z";

impl SavedZ {
    /// Hash of the steering weights in an adapter's directory; `None` where there are none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn policy_of(dir: &Path) -> Result<Option<String>, ModelError> {
        let path = dir.join(WEIGHTS);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(blake3::hash(&bytes).to_hex()[..32].to_string())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(ModelError::io(&path, e)),
        }
    }

    /// Writes it as safetensors.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ModelError> {
        let bytes: Vec<u8> = self.z.iter().flat_map(|value| value.to_le_bytes()).collect();
        let broken =
            |e: safetensors::SafeTensorError| ModelError::Safetensors { path: path.into(), reason: e.to_string() };
        let view = TensorView::new(safetensors::Dtype::F32, vec![self.z.len()], &bytes).map_err(broken)?;
        let metadata = [("policy", self.policy.clone()), ("contexts", self.contexts.to_string())]
            .map(|(key, value)| (key.into(), value));
        let bytes = safetensors::serialize([(Z, view)], Some(HashMap::from(metadata))).map_err(broken)?;
        write_file(path, &bytes)
    }

    /// Reads it.
    ///
    /// # Errors
    /// The file is missing or damaged, or is no file of a z.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let bytes = std::fs::read(path).map_err(|e| ModelError::io(path, e))?;
        let broken = |reason: String| ModelError::Steering { file: path.into(), reason };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| broken(e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| broken(e.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let missing = || broken("it has no vector of `spo steer`".into());
        let (policy, contexts) = metadata.get("policy").zip(metadata.get("contexts")).ok_or_else(missing)?;
        let view = file.tensor(Z).map_err(|_| missing())?;
        if view.dtype() != safetensors::Dtype::F32 || view.shape().len() != 1 {
            return Err(missing());
        }
        let z: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if let Some(value) = z.iter().find(|value| !value.is_finite()) {
            return Err(broken(format!("found {value} in z, expected finite numbers")));
        }
        let contexts =
            contexts.parse().map_err(|_| broken(format!("contexts: found {contexts:?}, expected a number")))?;
        Ok(Self { z, policy: policy.clone(), contexts })
    }

    /// The policy whose adapter is in `dir`, steered by it.
    ///
    /// # Errors
    /// It was made for another policy, or the model has no steering; `file` is what was read.
    pub fn steer(&self, model: CausalLm, dir: &Path, file: &Path) -> Result<CausalLm, ModelError> {
        let refuse = |reason: String| ModelError::Steering { file: PathBuf::from(file), reason };
        match Self::policy_of(dir)? {
            Some(policy) if policy == self.policy => {}
            Some(_) => return Err(refuse(format!("it was made for another policy than the one in {}", dir.display()))),
            None => return Err(refuse(format!("the policy in {} has no steering", dir.display()))),
        }
        let width = model.steering.as_ref().map_or(0, |steering| steering.encoder.width());
        if width != self.z.len() {
            return Err(refuse(format!("found {} numbers, expected {width}", self.z.len())));
        }
        let z = Tensor::from_data(TensorData::new(self.z.clone(), [1, width]), &model.device());
        Ok(model.steered(z, None))
    }
}
