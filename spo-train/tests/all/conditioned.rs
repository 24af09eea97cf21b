//! Policies and reward models that are told what counts, by weights or by contexts, on the device that `SPO_TEST_DEVICE` names (`cpu` if unset):
//! log-probs, rewards and gradients in f32 against those in f64 on the CPU.

use crate::told::{By, contexts, gradients, model, packed, rows};
use burn::tensor::{DType, Device};
use spo_data::PackedBatch;
use spo_model::parameters::replace;
use spo_model::steering::Contexts;
use spo_model::{CausalLm, device};
use spo_train::step::tape::Recompute;
use std::collections::BTreeMap;

/// Largest error as a share of the largest number of a tensor; of f32, whose rounding is 6e-8 for each operation.
const TOLERANCE: f64 = 1e-4;
/// Name of the log-probs, or of the rewards.
const SAID: &str = "log-probs or rewards";

/// The device to test on. One that is asked for and cannot be opened fails the test.
fn test_device() -> Device {
    let name = std::env::var("SPO_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    device::open(&name).unwrap_or_else(|error| panic!("SPO_TEST_DEVICE={name}: {error}"))
}

/// The policy for a batch whose groups are of three users, or at these weights.
fn told(by: By, model: CausalLm, batch: &PackedBatch) -> CausalLm {
    let (device, dtype) = (model.device(), model.dtype());
    let Contexts { pairs, sets } = contexts();
    match by {
        By::Weights => model.with_weights(&[0.7, 0.3]),
        _ => {
            let contexts = Contexts { pairs: pairs.to_device(&device).cast(dtype), sets };
            model.steered_by(&contexts, Some(&rows(batch, &[0, 1, 2, 0])))
        }
    }
}

/// What the heads say, and the gradients of its sum, each under its name.
fn found(by: By, model: CausalLm) -> BTreeMap<String, Vec<f64>> {
    let batch = packed(&model);
    let (said, gradients) = gradients(&told(by, model, &batch), &batch, by, Recompute::None);
    let numbers = |name: &str| gradients.get(name).unwrap().into_data().iter::<f64>().collect();
    let named = gradients.names().map(|name| (name.to_owned(), numbers(name)));
    named.chain([(SAID.to_owned(), said)]).collect()
}

#[test]
fn the_device_says_what_the_cpu_says_in_f64_with_the_same_gradients() {
    let device = test_device();
    let mut seen = vec![];
    for by in [By::Weights, By::Films, By::Cores, By::Both, By::Rewards] {
        let exact = model(by);
        let on_device = replace(exact.clone(), "", |parameter| parameter.value.cast(DType::F32).to_device(&device));
        assert_eq!(format!("{:?}", on_device.device()), format!("{device:?}"));
        let (expected, found) = (found(by, exact), found(by, on_device.unsteered()));
        assert!(expected.keys().eq(found.keys()) && expected.len() > 28, "{by:?}: {:?}", found.keys());
        for (name, expected) in &expected {
            let scale = expected.iter().fold(1e-2f64, |top, value| top.max(value.abs()));
            let errors = found[name].iter().zip(expected).map(|(a, b)| (a - b).abs() / scale);
            let error = errors.fold(0.0, |top: f64, error| if error <= top { top } else { error });
            assert!(error <= TOLERANCE, "{by:?}, {name}: {error:e} of {scale:e}");
        }
        seen.push(expected[SAID].clone());
    }
    assert!(seen.windows(2).all(|two| two[0] != two[1]), "each is told in its own way");
}
