//! Step 0, λ = 0, the sign of the margin offset, finite differences.

use burn::tensor::Device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use spo_core::{PairNumbers, Sides, differentiate};

use crate::world::{World, build, minimise, normal, spo};

pub fn random_sides(rng: &mut impl Rng, pairs: usize) -> Sides<Vec<f64>> {
    let mut side = || (0..pairs).map(|_| -40.0 + 10.0 * normal(rng)).collect();
    Sides { chosen: side(), rejected: side() }
}

/// Pairs with `policies` earlier policies.
pub fn random_pairs(seed: u64, pairs: usize, policies: usize) -> PairNumbers {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let policy = random_sides(&mut rng, pairs);
    let mut numbers = PairNumbers::new(policy.chosen, policy.rejected);
    numbers.earlier = (0..policies).map(|_| random_sides(&mut rng, pairs)).collect();
    numbers.reference = numbers.earlier.last().cloned();
    numbers
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[test]
fn step_zero_is_ln_2_in_round_1_and_mean_softplus_of_the_carry_later() {
    for policies in 1..5 {
        let mut pairs = random_pairs(policies as u64, 64, policies);
        let reference = pairs.reference.clone().unwrap();
        (pairs.policy_chosen, pairs.policy_rejected) = (reference.chosen, reference.rejected);
        let objective = build("spo", json!({"alpha": 0.2, "lambda": 0.6, "beta": 0.1}));
        let result = differentiate(objective.as_ref(), &pairs, &Device::flex()).unwrap();
        let mean = result.losses.iter().sum::<f64>() / 64.0;
        let expected = match &result.margin_offset {
            None => std::f64::consts::LN_2,
            Some(margin_offset) => margin_offset.iter().map(|c| softplus(*c)).sum::<f64>() / 64.0,
        };
        assert_eq!(result.margin_offset.is_some(), policies > 1);
        assert!((mean - expected).abs() < 1e-14 * expected, "{mean} {expected}");
        assert!(result.chosen_reward.iter().chain(&result.rejected_reward).all(|reward| *reward == 0.0));

        let tensors = pairs.to_tensors(&Device::flex(), burn::tensor::DType::F64);
        let known = objective.step_zero(&tensors).unwrap().unwrap().into_scalar::<f64>();
        assert!((mean - known).abs() < 1e-14 * mean, "{mean} {known}");
    }
}

#[test]
fn without_lambda_it_is_sequential_dpo_bit_for_bit() {
    let dpo = build("dpo", json!({"beta": 0.3}));
    for policies in 1..5 {
        let pairs = random_pairs(90 + policies as u64, 500, policies);
        let spo = build("spo", json!({"alpha": 0.3, "lambda": 0.0}));
        let a = differentiate(spo.as_ref(), &pairs, &Device::flex()).unwrap();
        let b = differentiate(dpo.as_ref(), &pairs, &Device::flex()).unwrap();
        assert_eq!(a.losses, b.losses);
        assert_eq!((a.d_chosen, a.d_rejected), (b.d_chosen, b.d_rejected));
        assert_eq!((a.chosen_reward, a.rejected_reward), (b.chosen_reward, b.rejected_reward));
    }
}

#[test]
fn pairs_on_which_earlier_dimensions_agree_weigh_more() {
    // π_1/π_0 prefers the chosen answer by 10 nats in row 0 and the rejected one in row 1: c = ±1 with β = .1.
    let side = |chosen: [f64; 2]| Sides { chosen: chosen.to_vec(), rejected: vec![-20.0, -20.0] };
    let mut pairs = PairNumbers::new(vec![-10.0, -30.0], vec![-20.0, -20.0]);
    pairs.earlier = vec![side([-20.0, -20.0]), side([-10.0, -30.0])];
    pairs.reference = pairs.earlier.last().cloned();
    let objective = build("spo", json!({"alpha": 0.1, "lambda": 1.0}));
    let result = differentiate(objective.as_ref(), &pairs, &Device::flex()).unwrap();
    let margin_offset = result.margin_offset.unwrap();
    assert!((margin_offset[0] - 1.0).abs() < 1e-12 && (margin_offset[1] + 1.0).abs() < 1e-12, "{margin_offset:?}");
    for (row, weight) in [(0, 0.731_058_578_630_004_9), (1, 0.268_941_421_369_995_1)] {
        assert!((result.d_chosen[row] + 0.1 * weight).abs() < 1e-12);
        assert!((result.d_rejected[row] - 0.1 * weight).abs() < 1e-12);
    }
}

#[test]
fn the_carry_protects_the_first_dimension() {
    let world = World::new(20, 12, 2, -0.6, 3);
    let first = minimise(
        build("dpo", json!({"beta": 0.5})).as_ref(),
        0.5,
        &world.rewards[0],
        std::slice::from_ref(&world.start),
    );
    let history = [world.start.clone(), first.clone()];
    let second = |lambda: f64| {
        let objective = spo(0.5, &[lambda], &[(0.5, vec![])], "recursive");
        world.expected(&minimise(objective.as_ref(), 0.5, &world.rewards[1], &history), 1)
    };
    let (held, sequential) = (second(1.0), second(0.0));
    assert!(held > world.expected(&first, 1) - 0.2 && held > sequential + 0.5, "held {held}, sequential {sequential}");
}

#[test]
fn finite_differences_equal_the_gradient() {
    let objective = build("spo", json!({"alpha": 0.1, "lambda": 0.7}));
    let pairs = random_pairs(5, 40, 4);
    let result = differentiate(objective.as_ref(), &pairs, &Device::flex()).unwrap();
    let loss = |pairs: &PairNumbers| differentiate(objective.as_ref(), pairs, &Device::flex()).unwrap().losses;
    let step = 1e-4;
    for chosen in [true, false] {
        let moved = |by: f64| {
            let mut pairs = pairs.clone();
            let side = if chosen { &mut pairs.policy_chosen } else { &mut pairs.policy_rejected };
            side.iter_mut().for_each(|logp| *logp += by);
            loss(&pairs)
        };
        let coded = if chosen { &result.d_chosen } else { &result.d_rejected };
        for ((up, down), coded) in moved(step).iter().zip(moved(-step)).zip(coded) {
            let derivative = (up - down) / (2.0 * step);
            assert!((derivative - coded).abs() < 1e-5 * coded.abs() + 1e-10, "{derivative} {coded}");
        }
    }
}
