//! Bounds on what a policy writes itself: the weights of log-probs, the estimate from samples, the ascent.

use burn::tensor::Device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spo_core::dual::{Ascent, Dual, reward_weights};

use crate::world::{Table, World, build, map, spo, spread};

const PROMPTS: usize = 50;
const ALPHA: f64 = 0.5;

/// `Σ_p w_p log π_p`.
fn reward(weights: &[f64], policies: &[&Table]) -> Table {
    map(policies[0], |x, y, _| weights.iter().zip(policies).map(|(weight, policy)| weight * policy[x][y]).sum())
}

/// `samples` answers to each prompt.
fn draw(policy: &Table, samples: usize, rng: &mut ChaCha8Rng) -> Vec<(usize, usize)> {
    let mut answer = |x: usize| {
        let mut left = rng.random::<f64>();
        policy[x]
            .iter()
            .position(|logp| {
                left -= logp.exp();
                left < 0.0
            })
            .unwrap_or(0)
    };
    (0..samples * PROMPTS).map(|index| (index % PROMPTS, answer(index % PROMPTS))).collect()
}

/// Mean and standard deviation of a table's values at these places.
fn moments(table: &Table, at: &[(usize, usize)]) -> (f64, f64) {
    let mean = at.iter().map(|(x, y)| table[*x][*y]).sum::<f64>() / at.len() as f64;
    let variance = at.iter().map(|(x, y)| (table[*x][*y] - mean).powi(2)).sum::<f64>() / at.len() as f64;
    (mean, variance.sqrt())
}

#[test]
fn the_weighed_log_probs_are_the_reward_of_the_round_up_to_a_constant_of_the_prompt() {
    let world = World::new(PROMPTS, 32, 2, -0.6, 31);
    let (beta, lambda) = (0.3, 0.7);
    let first = world.closed_form(&world.start, 1, beta, &[]);
    let second = world.closed_form(&first, 2, ALPHA, &[lambda]);
    let policies = [&world.start, &first, &second];
    let objective = spo(0.1, &[1.0, 1.0], &[(beta, vec![]), (ALPHA, vec![lambda])], "recursive");
    let weights = |of: &[f64]| reward_weights(objective.as_ref(), of, &Device::flex()).unwrap().unwrap();
    for (found, expected) in weights(&[1.0, 0.0]).iter().zip([-beta, beta, 0.0]) {
        assert!((found - expected).abs() < 1e-12);
    }
    // r̂_2 = α log(π_2/π_1) − λ r̂_1.
    for (found, expected) in weights(&[0.0, 1.0]).iter().zip([lambda * beta, -ALPHA - lambda * beta, ALPHA]) {
        assert!((found - expected).abs() < 1e-12);
    }
    for (round, of) in [[1.0, 0.0], [0.0, 1.0]].iter().enumerate() {
        let found = reward(&weights(of), &policies);
        assert!(spread(&map(&found, |x, y, reward| reward - world.rewards[round][x][y])) < 1e-9);
    }
    assert_eq!(reward_weights(build("dpo", serde_json::json!({})).as_ref(), &[1.0], &Device::flex()).unwrap(), None);
}

#[test]
fn the_estimate_from_samples_is_the_change_of_the_expected_reward() {
    let world = World::new(PROMPTS, 32, 2, -0.6, 31);
    let first = world.closed_form(&world.start, 1, ALPHA, &[]);
    let objective = spo(ALPHA, &[1.0], &[(ALPHA, vec![])], "recursive");
    let weights = reward_weights(objective.as_ref(), &[1.0], &Device::flex()).unwrap().unwrap();
    let implicit = reward(&weights, &[&world.start, &first]);
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for lambda in [0.0, 0.4, 1.5] {
        let policy = world.closed_form(&first, 2, ALPHA, &[lambda]);
        // By enumeration, of the true reward: the constants of the prompts, which r̂ has beside it, cancel.
        let exact = world.expected(&policy, 1) - world.expected(&first, 1);
        let samples = 400;
        let [(own, a), (before, b)] =
            [&policy, &first].map(|policy| moments(&implicit, &draw(policy, samples, &mut rng)));
        let error = ((a * a + b * b) / (samples * PROMPTS) as f64).sqrt();
        assert!((own - before - exact).abs() < 4.0 * error, "λ {lambda}: {} {exact} ± {error}", own - before);
    }
}

#[test]
fn the_ascent_on_samples_meets_a_bound_on_the_expected_reward() {
    let ascent = Ascent { rate: 0.1, gain: 0.1, most: 20.0 };
    let world = World::new(PROMPTS, 32, 2, -0.6, 31);
    let first = world.closed_form(&world.start, 1, ALPHA, &[]);
    let implicit = map(&first, |x, y, logp| ALPHA * (logp - world.start[x][y]));
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let (before, deviation) = moments(&implicit, &draw(&first, 8, &mut rng));
    let lost =
        |lambda: f64| world.expected(&world.closed_form(&first, 2, ALPHA, &[lambda]), 1) - world.expected(&first, 1);
    // A loss that the round would go beyond, and one that it never comes near.
    for (bound, binds) in [(0.3 * lost(0.0), true), (2.0 * lost(0.0), false)] {
        let (mut dual, mut sum, steps) = (Dual::new(&[0.0], ascent.most), 0.0, 600);
        for step in 0..steps {
            let policy = world.closed_form(&first, 2, ALPHA, dual.lambda());
            let (own, _) = moments(&implicit, &draw(&policy, 8, &mut rng));
            dual.ascend(&[(before + bound - own) / deviation], &ascent);
            sum += if 2 * step >= steps { dual.lambda()[0] } else { 0.0 };
        }
        let mean = 2.0 * sum / f64::from(steps);
        if binds {
            // The mean before the round is one of 400 samples.
            let error = 3.0 * deviation / (8.0 * PROMPTS as f64).sqrt();
            assert!(mean > 0.05 && (lost(mean) - bound).abs() < error, "{mean}: {} {bound} {error}", lost(mean));
        } else {
            assert_eq!(mean, 0.0);
        }
    }
}
