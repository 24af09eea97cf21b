//! The gradients of every family: against finite differences in f64, and with recomputed blocks.

use burn::module::{LoraAdapter, Module, Param, Reparameterizer};
use burn::tensor::{DType, Tensor, TensorData};
use spo_core::logprob::token_logps;
use spo_data::{Group, PackedBatch};
use spo_model::decoder::{Linear, PackedInputs};
use spo_model::lora::{LoraSpec, projections};
use spo_model::{CausalLm, device, parameters};
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::tape::{Recompute, TapeOptions, differentiate};
use std::path::Path;

fn families() -> Vec<(String, CausalLm)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/families");
    let dirs = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let load = |dir: std::path::PathBuf| {
        let name = dir.file_name().unwrap().to_str().unwrap().to_string();
        (name, CausalLm::from_dir(&dir, None, &device::cpu()).unwrap())
    };
    let families: Vec<_> = dirs.map(load).collect();
    assert!(!families.is_empty());
    families
}

/// Two pairs, longer than the batches of the models.
fn batch() -> PackedBatch {
    let tokens: Vec<u32> = (0..64).map(|i| (i * 37 + 11) % 160).collect();
    let group = |at: usize, prompt: usize, answers: [usize; 2]| Group {
        prompt: &tokens[at..at + prompt],
        answers: answers.iter().map(|&length| &tokens[at + length..at + 2 * length]).collect(),
    };
    PackedBatch::new(&[group(0, 10, [5, 8]), group(9, 4, [7, 2])])
}

/// Derivatives of a made-up loss with respect to each log-prob.
fn logp_gradients(rows: usize) -> Vec<f32> {
    (0..rows).map(|row| (row as f32 * 1.7).sin()).collect()
}

fn gradients(model: &CausalLm, recompute: Recompute) -> Gradients {
    let options = TapeOptions { recompute, trainable: Trainable::All, head: Default::default(), router_loss: 0.0 };
    let mut gradients = Gradients::default();
    let logp_gradients = |logps: &[f32]| Ok::<_, std::convert::Infallible>(logp_gradients(logps.len()));
    differentiate(model, &batch(), &options, &mut gradients, logp_gradients).unwrap();
    gradients
}

/// The loss those derivatives belong to.
fn loss(model: &CausalLm) -> f64 {
    let inputs = PackedInputs::new(&batch(), model.spec(), &model.device());
    let head = model.spec().head(&Default::default());
    let logps = token_logps(model.hidden(&inputs), model.head_weight(), inputs.targets.clone(), &head);
    let logps: Vec<f64> = logps.into_data().iter::<f64>().collect();
    logps.iter().zip(logp_gradients(logps.len())).map(|(logp, gradient)| logp * f64::from(gradient)).sum()
}

#[test]
fn gradients_of_every_parameter_equal_finite_differences_in_f64() {
    for (name, model) in families() {
        let model = parameters::replace(model, "", |parameter| parameter.value.cast(DType::F64));
        let gradients = gradients(&model, Recompute::None);
        let mut seen = vec![];
        parameters::for_each(&model, "", |parameter| seen.push((parameter.path, parameter.value.dims()[0])));
        seen.retain(|(path, _)| Trainable::All.contains(path));
        assert!(gradients.names().count() <= seen.len(), "{name}");
        // Where a router's choice turns the loss jumps: a shorter step meets that more seldom.
        let step = if model.spec().experts.is_some() { 1e-6 } else { 1e-5 };
        for (index, (path, count)) in seen.into_iter().enumerate() {
            let direction: Vec<f64> = (0..count).map(|i| ((i * 7 + index) as f64 * 0.737).sin()).collect();
            let direction = Tensor::<1>::from_data(TensorData::new(direction, [count]), (&model.device(), DType::F64));
            let moved = |step: f64| {
                loss(&parameters::replace(model.clone(), "", |parameter| match parameter.path == path {
                    true => parameter.value + direction.clone() * step,
                    false => parameter.value,
                }))
            };
            let expected = (moved(step) - moved(-step)) / (2.0 * step);
            let Some(gradient) = gradients.get(&path) else {
                assert!(
                    path.contains(".experts.") && expected == 0.0,
                    "{name} {path}: no gradient, expected {expected}"
                );
                continue;
            };
            assert_eq!(gradient.dtype(), DType::F64, "{name} {path}");
            let size: f64 = (gradient.clone() * direction.clone()).abs().sum().into_scalar();
            let found: f64 = (gradient * direction.clone()).sum().into_scalar();
            let error = (found - expected).abs();
            assert!(
                error <= 1e-6 * size + 1e-14 / step,
                "{name} {path}: found {found}, expected {expected}, terms {size}"
            );
        }
    }
}

#[test]
fn recomputed_blocks_give_the_same_bits() {
    for (name, model) in families() {
        let kept = gradients(&model, Recompute::None);
        for policy in [Recompute::Blocks, Recompute::EverySecond, Recompute::EveryFourth] {
            let again = gradients(&model, policy);
            for path in kept.names() {
                let [kept, again] = [&kept, &again].map(|gradients| gradients.get(path).unwrap().into_data());
                assert_eq!(kept.as_bytes(), again.as_bytes(), "{name} {policy:?} {path}");
            }
        }
    }
}

/// A weight under burn's own low-rank reparameterisation, `W + s · (a b)`, with these factors.
#[derive(Module, Debug)]
struct Reparameterised {
    weight: Param<Tensor<2>>,
}

struct Factors {
    a: Tensor<2>,
    b: Tensor<2>,
    scale: f64,
}

impl Reparameterizer for Factors {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        _: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        let [a, b] = [&self.a, &self.b].map(|factor| Param::from_tensor(factor.clone().autodiff()));
        (param.set_require_grad(false), Some(LoraAdapter { a, b, scale: self.scale }))
    }
}

#[test]
fn gradients_of_adapters_equal_those_through_burns_reparameterisation() {
    let spec = LoraSpec::new(2, 3.0);
    for (name, model) in families() {
        let model = parameters::replace(model, "", |parameter| parameter.value.cast(DType::F64));
        let adapted = parameters::replace(model.clone().with_lora(&spec, 5).unwrap(), "", |parameter| {
            let ramp = Tensor::arange(0..parameter.value.dims()[0] as i64, &parameter.value.device());
            let ramp = (ramp.float().cast(DType::F64) * 0.737).sin() * 0.1;
            if parameter.path.ends_with(".lora.b") { parameter.value + ramp } else { parameter.value }
        });
        let gradients_of = |model: &CausalLm, trainable: Trainable| {
            let options =
                TapeOptions { recompute: Recompute::None, trainable, head: Default::default(), router_loss: 0.0 };
            let mut gradients = Gradients::default();
            let logp_gradients = |logps: &[f32]| Ok::<_, std::convert::Infallible>(logp_gradients(logps.len()));
            differentiate(model, &batch(), &options, &mut gradients, logp_gradients).unwrap();
            gradients
        };
        let found = gradients_of(&adapted, Trainable::Adapters);
        let mut dense = adapted.clone();
        let mut weights = vec![];
        for (path, linear) in projections(&mut dense) {
            let lora = linear.lora.take().unwrap();
            let factors = Factors { a: lora.b.val(), b: lora.a.val(), scale: spec.scale() };
            let weight = Param::from_tensor(linear.dense().autodiff());
            let weight = Reparameterised { weight }.apply_reparameterization(factors).weight;
            *linear = Linear::new(weight.val().inner(), linear.bias.as_ref().map(Param::val));
            weights.push((path, weight));
        }
        let of_weights = gradients_of(&dense, Trainable::All);
        let trained = weights.iter().filter(|(path, _)| of_weights.get(&format!("{path}.weight")).is_some());
        assert_eq!(found.names().count(), 2 * trained.count(), "{name}");
        for (path, weight) in weights {
            // An expert that no token went to has none.
            let Some(gradient) = of_weights.get(&format!("{path}.weight")) else {
                assert!(path.contains(".experts."), "{name} {path}");
                continue;
            };
            let gradient = gradient.clone().reshape(weight.val().dims());
            let tape = (weight.val() * gradient.autodiff()).sum().backward();
            let factors = weight.adapter().unwrap();
            for (part, factor) in [("a", &factors.b), ("b", &factors.a)] {
                let expected = factor.val().grad(&tape).unwrap();
                let found = found.get(&format!("{path}.lora.{part}")).unwrap().clone().reshape(expected.dims());
                let size: f64 = expected.clone().abs().max().into_scalar();
                let error: f64 = (found - expected).abs().max().into_scalar();
                assert!(size > 0.0 && error <= 1e-9 * size, "{name} {path} {part}: {error:e} of {size:e}");
            }
        }
    }
}
