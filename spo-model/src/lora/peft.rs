//! Adapters in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`.

use super::{LoraAdapter, LoraSpec, is_adapter, projections};
use crate::export::{create_dir, write_file, write_safetensors};
use crate::layout::Layout;
use crate::load::Checkpoint;
use crate::parameters::for_each;
use crate::{CausalLm, ModelError};
use burn::module::Param;
use serde_json::{Value, json};
use std::path::Path;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// PEFT's name of the tensor at a module path such as `layers.0.mlp.up_proj.lora.a`.
fn peft_name(layout: &Layout, path: &str) -> String {
    let path = path.replace(".lora.a", ".lora_A.weight").replace(".lora.b", ".lora_B.weight");
    format!("base_model.model.{}", layout.name(&path))
}

/// Attaches the adapter saved in `dir` to a model, replacing any it has.
///
/// # Errors
/// Missing or damaged files, options of PEFT that change the computation and are not
/// implemented, tensors that fit no projection.
pub fn load_adapter(model: CausalLm, dir: &Path) -> Result<(CausalLm, LoraSpec), ModelError> {
    let config = dir.join(CONFIG);
    if !config.exists() {
        return Err(ModelError::MissingFile { dir: dir.into(), file: CONFIG.into() });
    }
    let spec = read_config(&config, model.spec().layout)?;
    let checkpoint = Checkpoint::open_file(&dir.join(WEIGHTS))?;
    let mut unused = checkpoint.names();
    let mut model = model.without_lora();
    let (device, dtype, layout) = (model.device(), model.dtype(), model.spec().layout);
    for (path, linear) in projections(&mut model) {
        let names = [peft_name(layout, &format!("{path}.lora.a")), peft_name(layout, &format!("{path}.lora.b"))];
        let [out, inputs] = linear.weight.val().dims();
        let a = checkpoint.read(&names[0], [spec.rank, inputs], None, &device)?;
        let b = checkpoint.read(&names[1], [out, spec.rank], None, &device)?;
        if let (Some(a), Some(b)) = (a, b) {
            let param = |tensor: burn::tensor::Tensor<2>| Param::from_tensor(tensor.cast(dtype));
            linear.lora = Some(LoraAdapter { a: param(a), b: param(b), scale: spec.scale() });
            unused.retain(|name| !names.contains(name));
        }
    }
    match unused.is_empty() {
        true => Ok((model, spec)),
        false => Err(ModelError::UnexpectedTensors { path: dir.join(WEIGHTS), names: unused.into_iter().collect() }),
    }
}

fn read_config(path: &Path, layout: &Layout) -> Result<LoraSpec, ModelError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| ModelError::io(path, e))?;
    let config: Value =
        serde_json::from_str(&text).map_err(|e| ModelError::Json { file: file.clone(), reason: e.to_string() })?;
    let refuse = |reason: String| Err(ModelError::Adapter { file: file.clone(), reason });
    if config["peft_type"] != "LORA" {
        return refuse(format!("peft_type: found {}, expected \"LORA\"", config["peft_type"]));
    }
    let active = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    let unsupported = [
        "use_dora",
        "lora_bias",
        "modules_to_save",
        "rank_pattern",
        "alpha_pattern",
        "layer_replication",
        "target_parameters",
    ];
    if let Some(key) = unsupported.into_iter().find(|key| active(&config[*key])) {
        return refuse(format!("{key}: found {}, which is not supported", config[key]));
    }
    // True where PEFT found weights stored [in, out]; it changes how they are merged, no adapter.
    if config["fan_in_fan_out"] == true && !layout.conv1d {
        return refuse("fan_in_fan_out: found true, which fits no layer of this model".into());
    }
    let (Some(rank), Some(alpha)) = (config["r"].as_u64().filter(|rank| *rank > 0), config["lora_alpha"].as_f64())
    else {
        return refuse("r and lora_alpha must be numbers above 0".into());
    };
    let targets = config["target_modules"].as_array().map(|names| {
        let mut names: Vec<String> =
            names.iter().filter_map(|name| Some(super::last_name(name.as_str()?).to_string())).collect();
        names.sort();
        names.dedup();
        names
    });
    Ok(LoraSpec {
        rank: rank as usize,
        alpha,
        rslora: config["use_rslora"] == true,
        targets: targets.unwrap_or_default(),
    })
}

/// Saves a model's adapters in PEFT's form. `base` is what `base_model_name_or_path` will say.
///
/// # Errors
/// The directory or a file cannot be written.
pub fn save_adapter(model: &CausalLm, spec: &LoraSpec, base: &str, dir: &Path) -> Result<(), ModelError> {
    create_dir(dir)?;
    let mut tensors = vec![];
    let mut targets = std::collections::BTreeSet::new();
    for_each(model, "", |mut parameter| {
        if is_adapter(&parameter.path) {
            targets.extend(parameter.path.split('.').nth_back(2).map(String::from));
            parameter.path = peft_name(model.spec().layout, &parameter.path);
            tensors.push(parameter);
        }
    });
    write_safetensors(tensors, &dir.join(WEIGHTS))?;
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "use_rslora": spec.rslora,
        "use_dora": false,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": model.spec().layout.conv1d,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
        "target_modules": targets,
    });
    write_file(&dir.join(CONFIG), format!("{config:#}\n").as_bytes())
}
