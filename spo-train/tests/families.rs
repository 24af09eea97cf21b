//! The gradients of every family: against finite differences in f64, and with recomputed blocks.
#![allow(clippy::unwrap_used, missing_docs)]

use burn::tensor::{DType, Tensor, TensorData};
use spo_core::logprob::token_logps;
use spo_data::{Group, PackedBatch};
use spo_model::decoder::PackedInputs;
use spo_model::{CausalLm, device, parameters};
use spo_train::config::spec::Recompute;
use spo_train::gradients::{Gradients, Trainable};
use spo_train::tape::{TapeOptions, differentiate};
use std::path::Path;

fn families() -> Vec<(String, CausalLm)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/families");
    let dirs = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let load = |dir: std::path::PathBuf| {
        let name = dir.file_name().unwrap().to_str().unwrap().to_string();
        (name, CausalLm::from_dir(&dir, None, &device::cpu()).unwrap())
    };
    let families: Vec<_> = dirs.map(load).collect();
    assert_eq!(families.len(), 13);
    families
}

/// Two pairs, longer than the windows of the models.
fn batch() -> PackedBatch {
    let tokens: Vec<u32> = (0..64).map(|i| (i * 37 + 11) % 160).collect();
    let group = |at: usize, prompt: usize, answers: [usize; 2]| Group {
        prompt: &tokens[at..at + prompt],
        answers: answers.iter().map(|&length| &tokens[at + length..at + 2 * length]).collect(),
    };
    PackedBatch::new(&[group(0, 10, [5, 8]), group(9, 4, [7, 2])])
}

/// Derivatives of a made-up loss with respect to each log-prob.
fn slopes(rows: usize) -> Vec<f32> {
    (0..rows).map(|row| (row as f32 * 1.7).sin()).collect()
}

fn gradients(model: &CausalLm, recompute: Recompute) -> Gradients {
    let options = TapeOptions { recompute, trainable: Trainable::All, head: Default::default() };
    let mut gradients = Gradients::default();
    let slopes = |logps: &[f32]| Ok::<_, std::convert::Infallible>(slopes(logps.len()));
    differentiate(model, &batch(), &options, &mut gradients, slopes).unwrap();
    gradients
}

/// The loss those derivatives belong to.
fn loss(model: &CausalLm) -> f64 {
    let inputs = PackedInputs::new(&batch(), model.spec(), model.dtype(), &model.device());
    let head = model.spec().head(&Default::default());
    let logps = token_logps(model.hidden(&inputs), model.head_weight(), inputs.targets.clone(), &head);
    let logps: Vec<f64> = logps.into_data().iter::<f64>().collect();
    logps.iter().zip(slopes(logps.len())).map(|(logp, slope)| logp * f64::from(slope)).sum()
}

#[test]
fn gradients_of_every_parameter_equal_finite_differences_in_f64() {
    for (name, model) in families() {
        let model = parameters::replace(model, "", |parameter| parameter.value.cast(DType::F64));
        let gradients = gradients(&model, Recompute::None);
        let mut seen = vec![];
        parameters::for_each(&model, "", |parameter| seen.push((parameter.path, parameter.value.dims()[0])));
        assert_eq!(gradients.names().count(), seen.len(), "{name}");
        for (index, (path, count)) in seen.into_iter().enumerate() {
            let direction: Vec<f64> = (0..count).map(|i| ((i * 7 + index) as f64 * 0.737).sin()).collect();
            let direction = Tensor::<1>::from_data(TensorData::new(direction, [count]), (&model.device(), DType::F64));
            let moved = |step: f64| {
                loss(&parameters::replace(model.clone(), "", |parameter| match parameter.path == path {
                    true => parameter.value + direction.clone() * step,
                    false => parameter.value,
                }))
            };
            let step = 1e-5;
            let expected = (moved(step) - moved(-step)) / (2.0 * step);
            let gradient = gradients.get(&path).unwrap().clone();
            assert_eq!(gradient.dtype(), DType::F64, "{name} {path}");
            let size: f64 = (gradient.clone() * direction.clone()).abs().sum().into_scalar();
            let found: f64 = (gradient * direction.clone()).sum().into_scalar();
            let error = (found - expected).abs();
            assert!(error <= 1e-6 * size + 1e-9, "{name} {path}: found {found}, expected {expected}, terms {size}");
        }
    }
}

#[test]
fn recomputed_blocks_give_the_same_bits() {
    for (name, model) in families() {
        let (kept, again) = (gradients(&model, Recompute::None), gradients(&model, Recompute::Blocks));
        for path in kept.names() {
            let [kept, again] = [&kept, &again].map(|gradients| gradients.get(path).unwrap().clone().into_data());
            assert_eq!(kept.as_bytes(), again.as_bytes(), "{name} {path}");
        }
    }
}
