//! Tiny policies that are told what counts, by weights or by contexts: what tests of them share.

use burn::tensor::{DType, Int, Tensor, TensorData, activation};
use spo_data::{Group, PackedBatch};
use spo_model::decoder::PackedInputs;
use spo_model::lora::{Condition, FrontSpec, LoraSpec, SavedModules};
use spo_model::parameters::replace;
use spo_model::reward::{Pooling, SCORE};
use spo_model::steering::{Contexts, SteeringSpec, is_steering};
use spo_model::{CausalLm, ModelSpec, device};
use spo_train::step::gradients::{Gradients, Trainable};
use spo_train::step::tape::{LogpGradients, Recompute, TapeOptions, differentiate_scored};
use std::convert::Infallible;

pub const WIDTH: usize = 8;

/// Numbers that look random.
pub fn numbers(count: usize, seed: f64) -> Vec<f64> {
    (0..count).map(|index| ((index as f64 + 1.0) * 12.9898 + seed).sin() * 0.4).collect()
}

pub fn seed_of(path: &str) -> f64 {
    path.bytes().map(f64::from).sum()
}

/// What a policy goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// z, through films.
    Films,
    /// z, through the cores of its adapters.
    Cores,
    /// z, through both.
    Both,
    /// Weights of two dimensions.
    Weights,
    /// z, through films, and a score head says what it thinks.
    Rewards,
}

impl By {
    /// Those that write text and go by z.
    pub const CONTEXTS: [Self; 3] = [Self::Films, Self::Cores, Self::Both];

    pub fn lora(self) -> LoraSpec {
        let condition = match self {
            Self::Films | Self::Rewards => None,
            Self::Cores | Self::Both => Some(Condition::Contexts(3)),
            Self::Weights => Some(Condition::Weights(["honesty", "helpfulness"].map(String::from).to_vec())),
        };
        let front = condition.map(|condition| FrontSpec { condition, shared_rank: 2 });
        LoraSpec { front, ..LoraSpec::new(2, 4.0) }
    }

    pub fn trainable(self) -> Trainable {
        match self {
            Self::Weights => Trainable::Adapters,
            Self::Rewards => Trainable::AdaptersAndSteering(SavedModules::default().with_score_head()),
            _ => Trainable::AdaptersAndSteering(SavedModules::default()),
        }
    }

    pub fn steering(self) -> Option<SteeringSpec> {
        let films = self != Self::Cores;
        (self != Self::Weights).then_some(SteeringSpec { width: WIDTH, heads: 2, contexts: 4, films })
    }
}

/// A tiny f64 model with adapters, and with whatever it goes by doing something.
pub fn model(by: By) -> CausalLm {
    let spec = ModelSpec::from_json(
        r#"{"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 4, "tie_word_embeddings": true}"#,
    );
    let model = CausalLm::random(&spec.unwrap(), 7, &device::cpu()).with_lora(&by.lora(), 3).unwrap();
    let model = if by == By::Rewards { model.with_score_head(3, Pooling::BeforePads(6)) } else { model };
    let model = by.steering().iter().fold(model, |model, steering| model.with_steering(steering, 5));
    let model = replace(model, "", |parameter| {
        let value = parameter.value.cast(DType::F64);
        let [count] = value.dims();
        // At the start films, coefficients and encoders' biases would hide mistakes.
        let moved = is_steering(&parameter.path) || ["lora.b", SCORE].iter().any(|end| parameter.path.ends_with(end));
        match moved {
            true => value + flat(numbers(count, seed_of(&parameter.path))),
            false => value,
        }
    });
    model.unsteered()
}

pub fn flat(values: Vec<f64>) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), (&device::cpu(), DType::F64))
}

/// Three users with 2, 0 and 3 contexts.
pub fn contexts() -> Contexts {
    let pairs = flat(numbers(5 * 32, 1.0)).reshape([5, 32]);
    Contexts { pairs, sets: vec![2, 0, 3] }
}

pub fn groups() -> [Group<'static>; 4] {
    let group = |prompt: &'static [u32], answers: [&'static [u32]; 2]| Group { prompt, answers: answers.to_vec() };
    [
        group(&[1, 2, 3], [&[4, 5, 6], &[7]]),
        group(&[8], [&[9, 10], &[11, 12]]),
        group(&[1, 20, 21], [&[22], &[23, 24, 25]]),
        group(&[3, 3], [&[4, 4], &[5]]),
    ]
}

/// The user of each token of a batch, where group `i` is of user `users[i]`.
pub fn rows(batch: &PackedBatch, users: &[i32]) -> Vec<i32> {
    batch.groups.iter().zip(users).flat_map(|(group, user)| std::iter::repeat_n(*user, group.tokens())).collect()
}

/// The gradient of the loss with respect to the log-prob of each token: numbers that f32 holds.
pub fn slope(row: usize) -> f64 {
    [0.5, -0.25, 1.0, -0.75, 0.125][row % 5]
}

/// The groups for the heads of a model.
pub fn packed(model: &CausalLm) -> PackedBatch {
    match model.score {
        Some(_) => model.packed_for_rewards(&groups()),
        None => PackedBatch::new(&groups()),
    }
}

/// `Σ slope · log p`, or of rewards, in f64.
pub fn loss(model: &CausalLm, batch: &PackedBatch) -> f64 {
    let inputs = PackedInputs::new(batch, model.spec(), &device::cpu());
    let hidden = model.hidden(&inputs);
    let said = match &model.score {
        Some(head) => head.forward(hidden),
        None => {
            let targets: Tensor<2, Int> = inputs.targets.unsqueeze_dim(1);
            activation::log_softmax(model.logits(hidden), 1).gather(1, targets)
        }
    };
    said.into_data().iter::<f64>().enumerate().map(|(row, said)| slope(row) * said).sum()
}

/// What the heads say, and the gradients of [`loss`].
pub fn gradients(model: &CausalLm, batch: &PackedBatch, by: By, recompute: Recompute) -> (Vec<f64>, Gradients) {
    let options = TapeOptions { recompute, trainable: by.trainable(), ..TapeOptions::default() };
    let (mut said, mut gradients) = (vec![], Gradients::default());
    differentiate_scored(model, batch, &options, &mut gradients, |scored| {
        said.extend(scored.logps.iter().chain(scored.values).map(|said| f64::from(*said)));
        let slopes = |count: usize| (0..count).map(|row| slope(row) as f32).collect();
        let (logps, values) = (slopes(scored.logps.len()), slopes(scored.values.len()));
        Ok::<_, Infallible>(LogpGradients { logps, values, head_only: false, divergence: None })
    })
    .unwrap();
    (said, gradients)
}
