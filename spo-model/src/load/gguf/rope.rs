//! Rotary embeddings of GGUF files as `config.json` says them.

use crate::gguf::architecture::Architecture;
use crate::gguf::keys::{ATTENTION_FACTOR, CONTEXT, FACTOR, ORIGINAL_CONTEXT, ROTATED, SCALING_TYPE};
use crate::gguf::tensors::{FREQUENCY_FACTORS, LONG_FACTORS, SHORT_FACTORS, scaled_by};
use crate::quant::Format;
use crate::spec::{Rope, RopeScaling};
use crate::{ModelError, ModelSpec};
use serde_json::{Value as Json, json};
use spo_data::gguf::{Gguf, GgufError, Value};

/// Writes the rotated channels and the scaling into a configuration.
pub fn read(file: &Gguf, architecture: &Architecture, head_dim: usize, config: &mut Json) -> Result<(), ModelError> {
    let key = |name: &str| format!("{}.{name}", architecture.name);
    let dim = file.count(&key(ROTATED))?.unwrap_or(head_dim);
    if dim == 0 || dim > head_dim || !dim.is_multiple_of(2) {
        return Err(file.expected(&key(ROTATED), &format!("an even number of at most {head_dim} channels")).into());
    }
    if dim != head_dim || ["gpt_neox", "glm4"].contains(&architecture.family) {
        config[architecture.config_key("partial_rotary_factor")] = fraction(dim, head_dim).into();
    }
    let original = file.count(&key(ORIGINAL_CONTEXT))?;
    let factor = || match file.get(&key(FACTOR)) {
        Some(Value::Real(factor)) => Ok(*factor),
        _ => Err(file.expected(&key(FACTOR), "a number")),
    };
    let kind = file.text(&key(SCALING_TYPE))?.unwrap_or("none");
    let [plain, long, short] = [FREQUENCY_FACTORS[0], LONG_FACTORS, SHORT_FACTORS];
    let has = |name: &str| file.tensor(name).is_some();
    let scaling = match kind {
        "none" if has(plain) => llama_3(file, config, dim)?,
        "none" | "longrope" if has(long) || has(short) => {
            let context = file.count(&key(CONTEXT))?;
            config["original_max_position_embeddings"] = original.or(context).into();
            json!({ "rope_type": "longrope", "short_factor": factors(file, short, dim)?, "long_factor": factors(file, long, dim)? })
        }
        "none" => return Ok(()),
        "linear" if !has(plain) => json!({ "rope_type": "linear", "factor": factor()? }),
        "yarn" if !has(plain) => match original {
            Some(original) => {
                json!({ "rope_type": "yarn", "factor": factor()?, "original_max_position_embeddings": original })
            }
            None => return Err(file.expected(&key(ORIGINAL_CONTEXT), "a whole number").into()),
        },
        _ => return Err(file.expected(&key(SCALING_TYPE), "none, linear, yarn or longrope with its factors").into()),
    };
    config["rope_scaling"] = scaling;
    Ok(())
}

/// `dim / whole`, such that its product with `whole` is not below `dim`.
fn fraction(dim: usize, whole: usize) -> f64 {
    let fraction = dim as f64 / whole as f64;
    if (whole as f64 * fraction) < dim as f64 { fraction.next_up() } else { fraction }
}

fn factors(file: &Gguf, name: &str, dim: usize) -> Result<Vec<f64>, GgufError> {
    let info = file.tensor(name).filter(|info| info.shape == [dim / 2] && Format::describe(info.kind) == "F32");
    if info.is_none() {
        return Err(file.error(format!("tensor `{name}`"), format!("expected {} numbers as F32", dim / 2)));
    }
    let bytes = file.bytes(name, dim / 2 * 4)?.bytes;
    Ok(bytes.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect())
}

/// Llama 3's scaling, of which a file has the results alone: the published models differ in the factor and the original
/// context, a power of two.
fn llama_3(file: &Gguf, config: &Json, dim: usize) -> Result<Json, ModelError> {
    let name = FREQUENCY_FACTORS[0];
    let found = factors(file, name, dim)?;
    let theta = config["rope_theta"].as_f64().unwrap_or(10_000.0);
    let factor = found.iter().copied().fold(1.0, f64::max);
    let (low, high) = (1.0, 4.0);
    let fits = |original_context: f64| {
        let scaling = RopeScaling::Llama3 { factor, low, high, original_context };
        let ours = scaled_by(&Rope { theta, dim, scaling, pairs: false, growth: None });
        ours.iter().zip(&found).all(|(ours, found)| (f64::from(*ours) / found - 1.0).abs() < 1e-5)
    };
    let contexts = [8192.0].into_iter().chain((4..24).map(|power| f64::from(1 << power)));
    match contexts.into_iter().find(|context| fits(*context)) {
        Some(original) => Ok(json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": original as u64,
        })),
        None => {
            let reason = "expected factors of Llama 3's scaling, from 1 to 4 and for a context that is a power of two";
            Err(file.error(format!("tensor `{name}`"), reason).into())
        }
    }
}

/// Sets LongRoPE's factor on cosines and sines where it does not follow from the contexts.
pub fn set_attention_factor(
    file: &Gguf,
    architecture: &Architecture,
    spec: &ModelSpec,
    config: &mut Json,
) -> Result<bool, GgufError> {
    let key = format!("{}.{ATTENTION_FACTOR}", architecture.name);
    match (file.get(&key), spec.ropes.first().map(|rope| &rope.scaling)) {
        (None, _) => Ok(false),
        (Some(Value::Real(found)), Some(RopeScaling::LongRope { attention_factor, .. })) => {
            let other = *found as f32 != *attention_factor as f32;
            if other {
                config["rope_scaling"]["attention_factor"] = (*found).into();
            }
            Ok(other)
        }
        _ => Err(file.expected(&key, "no such key without LongRoPE's factors")),
    }
}
