//! NP-BTL on the synthetic example of arXiv 2412.13998: answers are numbers in [0, 1), of two kinds of users one prefers the
//! larger and the other the smaller above one half, and a few labelled pairs must tell which kind is asking.
//!
//! `cargo run --release -p spo-train --example np_btl` takes minutes; with a number behind `--` it is that of steps.
#![allow(clippy::print_stdout)]

use burn::tensor::{Tensor, TensorData, activation};
use spo_model::device;
use spo_model::lora::mix;
use spo_model::steering::{Contexts, EncoderShape, NpReward};
use spo_train::step::optimizer::{AdamW, AdamWConfig};
use spo_train::step::tape::module_gradients;

/// Users of a step, and pairs of each.
const USERS: usize = 64;
const PAIRS: usize = 20;
/// Most contexts in training.
const CONTEXTS: usize = 10;
/// Numbers of contexts that are measured.
const MEASURED: [usize; 5] = [0, 1, 3, 5, 10];

/// Numbers drawn by a counter.
struct Draws(u64);

impl Draws {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        (mix(self.0) % count as u64) as usize
    }

    /// From [0, 1).
    fn unit(&mut self) -> f32 {
        self.below(1 << 24) as f32 / (1 << 24) as f32
    }
}

/// What a user of a kind thinks of an answer.
fn reward(kind: usize, y: f32) -> f32 {
    match kind {
        _ if y < 0.5 => y,
        0 => 2.0 * y,
        _ => 1.0 - y,
    }
}

/// The pairs of one user: preferred answer first.
fn user(pairs: &[[f32; 2]], count: usize, draws: &mut Draws) -> Vec<[f32; 2]> {
    let kind = draws.below(2);
    let pair = |_| {
        let [a, b] = pairs[draws.below(pairs.len())];
        if reward(kind, a) >= reward(kind, b) { [a, b] } else { [b, a] }
    };
    (0..count).map(pair).collect()
}

fn column(values: Vec<f32>) -> Tensor<2> {
    let rows = values.len();
    Tensor::from_data(TensorData::new(values, [rows, 1]), &device::cpu())
}

/// The first `count` pairs of each user as contexts.
fn contexts(users: &[Vec<[f32; 2]>], count: usize) -> Contexts {
    let values: Vec<f32> = users.iter().flat_map(|pairs| pairs[..count].concat()).collect();
    let pairs = Tensor::from_data(TensorData::new(values, [users.len() * count, 2]), &device::cpu());
    Contexts { pairs, sets: vec![count; users.len()] }
}

/// By how much each pair's preferred answer has the higher reward, the pairs from `from` on.
fn margins(model: &NpReward, users: &[Vec<[f32; 2]>], told: usize, from: usize) -> Tensor<1> {
    let pairs: Vec<[f32; 2]> = users.iter().flat_map(|pairs| pairs[from..].iter().copied()).collect();
    let of: Vec<i32> = users.iter().enumerate().flat_map(|(user, p)| vec![user as i32; p.len() - from]).collect();
    let side = |side: usize| column(pairs.iter().map(|pair| pair[side]).collect());
    let rewards =
        model.forward(Tensor::cat(vec![side(0), side(1)], 0), &contexts(users, told), &[of.clone(), of].concat());
    let count = pairs.len();
    rewards.clone().narrow(0, 0, count) - rewards.narrow(0, count, count)
}

/// Trains for so many steps; the accuracy on unseen pairs for each number of contexts, none of which is scored.
pub fn train(steps: usize, seed: u64) -> Vec<(usize, f64)> {
    let mut draws = Draws(mix(seed));
    let mut pool = |count: usize| -> Vec<[f32; 2]> { (0..count).map(|_| [draws.unit(), draws.unit()]).collect() };
    let (train, test) = (pool(18_000), pool(2_000));
    let shape = EncoderShape { inputs: 2, width: 256, heads: 8, deep: true };
    let mut model = NpReward::new(&shape, seed, &device::cpu());
    let mut optimizer = AdamW::new(AdamWConfig { epsilon: 3e-5, weight_decay: 0.01, ..AdamWConfig::default() });
    for _ in 0..steps {
        let users: Vec<_> = (0..USERS).map(|_| user(&train, PAIRS, &mut draws)).collect();
        let told = draws.below(CONTEXTS + 1);
        let (_, gradients) = module_gradients(&model, |model| {
            // The Bradley–Terry loss, −log σ(margin).
            activation::softplus(margins(model, &users, told, 0).neg(), 1.0).mean()
        });
        model = optimizer.step(model, gradients, 1e-4, 1.0);
    }
    let accuracy = |told: usize| {
        let users: Vec<_> = (0..20 * USERS).map(|_| user(&test, told + PAIRS, &mut draws)).collect();
        let margins: Vec<f32> = margins(&model, &users, told, told).into_data().iter::<f32>().collect();
        let right = margins.iter().filter(|margin| **margin > 0.0).count();
        (told, 100.0 * right as f64 / margins.len() as f64)
    };
    MEASURED.into_iter().map(accuracy).collect()
}

#[allow(dead_code, reason = "the test trains too")]
fn main() {
    let steps = std::env::args().nth(1).and_then(|steps| steps.parse().ok()).unwrap_or(1000);
    for (contexts, accuracy) in train(steps, 1) {
        println!("{contexts:>2} contexts: {accuracy:.1} %");
    }
}
