//! Random batches with every input that any objective needs.

use burn::tensor::Device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use spo_core::objective::{self, Entry};
use spo_core::pair::SampledLogps;
use spo_core::{Objective, PairGradient, PairNumbers, Sides, differentiate};

pub fn paired() -> impl Iterator<Item = &'static Entry> {
    objective::registry().iter().filter(|entry| entry.build.pair().is_some())
}

pub fn build(name: &str, options: Value) -> Box<dyn Objective> {
    objective::build(name, options.as_object().unwrap()).unwrap()
}

pub fn default(entry: &Entry) -> Box<dyn Objective> {
    build(entry.name, json!({}))
}

pub fn run(objective: &dyn Objective, pairs: &PairNumbers) -> PairGradient {
    differentiate(objective, pairs, &Device::flex()).unwrap()
}

/// Log-probabilities around `level`, log-ratios around ± `spread`; earlier policies are π_0 and π_1.
pub fn batch(seed: u64, pairs: usize, level: f64, spread: f64) -> PairNumbers {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut around = |centre: f64, width: f64| -> Vec<f64> {
        (0..pairs).map(|_| centre + width * (2.0 * rng.random::<f64>() - 1.0)).collect()
    };
    let reference = Sides { chosen: around(-level, level * 0.5), rejected: around(-level, level * 0.5) };
    let near =
        |base: &[f64], noise: Vec<f64>| base.iter().zip(noise).map(|(b, n)| (b + n).min(-1e-3)).collect::<Vec<_>>();
    let moved = |width: f64, around: &mut dyn FnMut(f64, f64) -> Vec<f64>| Sides {
        chosen: near(&reference.chosen, around(0.0, width)),
        rejected: near(&reference.rejected, around(0.0, width)),
    };
    let policy = moved(spread, &mut around);
    let mut numbers = PairNumbers::new(policy.chosen, policy.rejected);
    numbers.earlier = vec![moved(spread, &mut around), reference.clone()];
    numbers.mixture = vec![moved(2.0, &mut around), moved(2.0, &mut around)];
    numbers.lengths = Some(Sides {
        chosen: around(30.0, 25.0).into_iter().map(f64::round).collect(),
        rejected: around(30.0, 25.0).into_iter().map(f64::round).collect(),
    });
    numbers.sequence_kl = Some(Sides { chosen: around(3.0, 3.0), rejected: around(3.0, 3.0) });
    numbers.sampled = Some(SampledLogps { policy: around(-level, 1.0), reference: around(-level, 1.0) });
    numbers.strengths = Some(around(2.0, 2.0));
    numbers.safety = Some(Sides {
        chosen: around(0.5, 1.0).into_iter().map(|v| f64::from(v > 0.5)).collect(),
        rejected: around(0.5, 1.0).into_iter().map(|v| f64::from(v > 0.5)).collect(),
    });
    numbers.on_policy = Some(Sides { chosen: around(-1.0, 0.9), rejected: around(-1.0, 0.9) });
    numbers.reference = Some(reference);
    numbers
}
