//! Mixtures of experts: the loss that spreads tokens over them.

use burn::tensor::{DType, Tensor, TensorData};
use spo_core::logprob::token_logps;
use spo_data::{Group, PackedBatch};
use spo_model::decoder::{Attend, Balance, PackedInputs};
use spo_model::{CausalLm, device, parameters};
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::tape::{Recompute, TapeOptions, differentiate};
use std::path::Path;

const WEIGHT: f64 = 3.0;

const GOLDEN: [(&str, f64); 6] = [
    ("mixtral", 2.295000),
    ("qwen2-moe", 2.148226),
    ("qwen3-moe", 2.124403),
    ("olmoe", 2.003116),
    ("granitemoe", 2.032326),
    ("gpt-oss", 1.998302),
];

fn load(name: &str) -> CausalLm {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/families").join(name);
    CausalLm::from_dir(&dir, None, &device::cpu()).unwrap()
}

fn tokens(count: u32) -> Vec<u32> {
    (0..count).map(|i| (i * 37 + 11) % 160).collect()
}

/// The balance of all tokens of a batch, block by block.
fn balance(model: &CausalLm, batch: &PackedBatch) -> Balance {
    let inputs = PackedInputs::new(batch, model.spec(), &model.device());
    let (mut x, mut balance) = (model.embed(inputs.ids.clone(), inputs.positions.clone()).x, Balance::default());
    for (layer, block) in model.layers.iter().enumerate() {
        let (qkv, attention) = (block.before_attention(x.clone(), &inputs.rope), &block.self_attn);
        let y = inputs.attention().attend(layer, attention.spec(), qkv, attention.sink_scores());
        let scores;
        (x, scores) = block.after_attention_scored(x, y, None);
        if let (Some(experts), Some(scores)) = (&block.moe, scores) {
            balance.add(experts, &scores);
        }
    }
    balance
}

/// `aux_loss` of transformers 5.23 for the same tokens.
#[test]
fn the_loss_is_that_of_transformers() {
    for (name, expected) in GOLDEN {
        let all = tokens(24);
        let batch = PackedBatch::new(&[Group { prompt: &all, answers: vec![] }]);
        let found = balance(&load(name), &batch).loss();
        assert!((found - expected).abs() < 1e-4, "{name}: {found}, expected {expected}");
    }
}

fn batch() -> PackedBatch {
    let all = tokens(30);
    PackedBatch::new(&[Group { prompt: &all[..12], answers: vec![&all[12..20], &all[20..]] }])
}

fn logp_gradients(rows: usize) -> Vec<f32> {
    (0..rows).map(|row| (row as f32 * 1.7).sin()).collect()
}

fn loss(model: &CausalLm) -> f64 {
    let inputs = PackedInputs::new(&batch(), model.spec(), &model.device());
    let head = model.spec().head(&Default::default());
    let logps = token_logps(model.hidden(&inputs), model.head_weight(), inputs.targets.clone(), &head);
    let logps: Vec<f64> = logps.into_data().iter::<f64>().collect();
    let own: f64 = logps.iter().zip(logp_gradients(logps.len())).map(|(logp, d)| logp * f64::from(d)).sum();
    own + WEIGHT * balance(model, &batch()).loss()
}

fn gradients(model: &CausalLm, recompute: Recompute) -> Gradients {
    let options = TapeOptions { recompute, trainable: Trainable::All, head: Default::default(), router_loss: WEIGHT };
    let mut gradients = Gradients::default();
    let of_logps = |logps: &[f32]| Ok::<_, std::convert::Infallible>(logp_gradients(logps.len()));
    differentiate(model, &batch(), &options, &mut gradients, of_logps).unwrap();
    gradients
}

/// Recomputed blocks too, and a model whose first block has no experts.
#[test]
fn its_gradients_equal_finite_differences_in_f64() {
    for (name, recompute) in [("mixtral", Recompute::None), ("qwen3-moe", Recompute::Blocks)] {
        let model = parameters::replace(load(name), "", |parameter| parameter.value.cast(DType::F64));
        let gradients = gradients(&model, recompute);
        let mut seen = vec![];
        parameters::for_each(&model, "", |parameter| seen.push((parameter.path, parameter.value.dims()[0])));
        seen.retain(|(path, _)| !path.contains(".experts.") || path.contains(".experts.1."));
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
            let gradient = gradients.get(&path).unwrap();
            let size: f64 = (gradient.clone() * direction.clone()).abs().sum().into_scalar();
            let found: f64 = (gradient * direction.clone()).sum().into_scalar();
            let error = (found - expected).abs();
            assert!(error <= 1e-6 * size + 1e-8, "{name} {path}: found {found}, expected {expected}, terms {size}");
        }
    }
}
