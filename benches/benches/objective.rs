//! What does an objective cost on a batch of 4,096 pairs, losses and gradients included?

use burn::tensor::Device;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use serde_json::Map;
use spo_core::objective::{
    self, AnswerNumbers, Build, ListNumbers, RewardNumbers, differentiate_answers, differentiate_lists,
    differentiate_rewards,
};
use spo_core::pair::SampledLogps;
use spo_core::{PairNumbers, Sides, differentiate};

const PAIRS: usize = 4096;

/// Numbers without a generator: the fractional parts of a multiple of the golden ratio, around `centre`.
fn spread(seed: usize, centre: f64, width: f64) -> Vec<f64> {
    (0..PAIRS).map(|i| centre + width * ((((i + 1) * seed) as f64 * 0.618_033_988_749_895).fract() - 0.5)).collect()
}

fn sides(seed: usize, centre: f64, width: f64) -> Sides<Vec<f64>> {
    Sides { chosen: spread(seed, centre, width), rejected: spread(seed + 1, centre, width) }
}

/// Only what the objective needs, as the engine hands it over.
fn batch(objective: &dyn objective::Objective, history: bool) -> PairNumbers {
    let needs = objective.needs();
    let policy = sides(3, -100.0, 20.0);
    let mut pairs = PairNumbers::new(policy.chosen, policy.rejected);
    pairs.reference = needs.reference.then(|| sides(5, -100.0, 20.0));
    if history {
        pairs.earlier = vec![sides(7, -100.0, 20.0), sides(5, -100.0, 20.0)];
    }
    if needs.mixture {
        pairs.mixture = vec![sides(9, -100.0, 20.0), sides(11, -100.0, 20.0)];
    }
    pairs.lengths = needs.lengths.then(|| sides(13, 60.0, 80.0));
    pairs.sequence_kl = needs.sequence_kl.then(|| sides(15, 5.0, 6.0));
    pairs.strengths = needs.strengths.then(|| spread(17, 2.0, 3.0));
    pairs.safety = needs.safety.then(|| Sides { chosen: vec![1.0; PAIRS], rejected: vec![0.0; PAIRS] });
    pairs.sampled =
        needs.sampled.then(|| SampledLogps { policy: spread(19, -80.0, 4.0), reference: spread(21, -80.0, 4.0) });
    pairs
}

/// The same numbers as single answers: every other pair's chosen one, and the rejected ones of the rest.
fn answers() -> AnswerNumbers {
    let desirable = (0..PAIRS).map(|i| (i % 2) as f64).collect();
    AnswerNumbers { policy: spread(3, -100.0, 20.0), reference: spread(5, -100.0, 20.0), desirable, kl: 0.5 }
}

/// The same pairs as lists of two.
fn lists() -> ListNumbers {
    let both = |seed: usize, centre: f64, width: f64| {
        let sides = sides(seed, centre, width);
        sides.chosen.into_iter().zip(sides.rejected).map(|(chosen, rejected)| vec![chosen, rejected]).collect()
    };
    ListNumbers { policy: both(3, -100.0, 20.0), reference: both(5, -100.0, 20.0), gains: vec![vec![3.0, 1.0]; PAIRS] }
}

/// Rewards of as many pairs.
fn rewards() -> RewardNumbers {
    let Sides { chosen, rejected } = sides(23, 0.0, 4.0);
    RewardNumbers { chosen, rejected, strengths: None, ties: vec![0.0; PAIRS] }
}

fn objectives(criterion: &mut Criterion) {
    let device = Device::flex();
    let mut group = criterion.benchmark_group("objective, 4096 pairs");
    let (answers, lists, rewards, none) = (answers(), lists(), rewards(), Map::new());
    for entry in objective::registry() {
        let name = BenchmarkId::from_parameter(entry.name);
        if entry.build.pair().is_some() {
            let objective = objective::build(entry.name, &none).expect("defaults are valid");
            let pairs = batch(objective.as_ref(), entry.needs.history);
            group.bench_with_input(name, &pairs, |bencher, pairs| {
                bencher.iter(|| differentiate(objective.as_ref(), pairs, &device).expect("the batch is complete"));
            });
        } else if entry.build.unpaired().is_some() {
            let objective = objective::build_unpaired(entry.name, &none).expect("defaults are valid");
            group.bench_with_input(name, &answers, |bencher, answers| {
                bencher.iter(|| differentiate_answers(objective.as_ref(), answers, &device).expect("complete"));
            });
        } else if let Build::Reward(_) = entry.build {
            let objective = objective::build_reward(entry.name, &none).expect("defaults are valid");
            group.bench_with_input(name, &rewards, |bencher, rewards| {
                bencher.iter(|| differentiate_rewards(objective.as_ref(), rewards, &device).expect("complete"));
            });
        } else if let Build::List(_) = entry.build {
            let objective = objective::build_list(entry.name, &none).expect("defaults are valid");
            group.bench_with_input(name, &lists, |bencher, lists| {
                bencher.iter(|| differentiate_lists(objective.as_ref(), lists, &device).expect("complete"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, objectives);
criterion_main!(benches);
