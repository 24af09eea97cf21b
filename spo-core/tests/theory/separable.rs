//! Labels without noise have no finite minimiser: only early stopping or a KL budget ends the round.

use burn::tensor::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use spo_core::{Objective, PairNumbers, Sides, differentiate};

use crate::world::{Table, World, build, map, minimise, normal, normalised, spo};

/// Each pair of responses with its better one as the chosen one, always.
fn certain_pairs(reward: &Table) -> Vec<(usize, usize, usize)> {
    let responses = reward[0].len();
    (0..reward.len())
        .flat_map(|x| (0..responses).flat_map(move |i| (0..responses).map(move |j| (x, i, j))))
        .filter(|(x, i, j)| reward[*x][*i] > reward[*x][*j])
        .collect()
}

/// Mean loss on certain labels, and its derivative along the reward.
fn loss_and_gradient(objective: &dyn Objective, reward: &Table, history: &[Table], policy: &Table) -> (f64, f64) {
    let index = certain_pairs(reward);
    let sides = |table: &Table| Sides {
        chosen: index.iter().map(|(x, i, _)| table[*x][*i]).collect::<Vec<_>>(),
        rejected: index.iter().map(|(x, _, j)| table[*x][*j]).collect::<Vec<_>>(),
    };
    let Sides { chosen, rejected } = sides(policy);
    let mut pairs = PairNumbers::new(chosen, rejected);
    pairs.reference = history.last().map(&sides);
    pairs.earlier = history.iter().map(&sides).collect();
    let result = differentiate(objective, &pairs, &Device::flex()).unwrap();
    let pushes = result.d_chosen.iter().zip(&result.d_rejected).zip(&index);
    let derivative: f64 = pushes.map(|((c, r), (x, i, j))| c * reward[*x][*i] + r * reward[*x][*j]).sum();
    let count = index.len() as f64;
    (result.losses.iter().sum::<f64>() / count, derivative / count)
}

fn check(objective: &dyn Objective, reward: &Table, history: &[Table]) {
    // Wherever the policy is, going on along the reward lowers the loss: no point is a minimum.
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    for width in [0.1, 1.0, 10.0] {
        let policy = normalised(map(reward, |_, _, _| width * normal(&mut rng)));
        let (_, derivative) = loss_and_gradient(objective, reward, history, &policy);
        assert!(derivative < 0.0, "a derivative of {derivative} at a policy of width {width}");
    }
    // The infimum is 0. It is approached as the policy becomes deterministic, which spends any KL budget.
    let start = history.last().unwrap();
    let along = |t: f64| normalised(map(start, |x, y, logp| logp + t * reward[x][y]));
    let divergence = |policy: &Table| {
        let rows = policy.iter().zip(start);
        rows.map(|(p, q)| p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()).sum::<f64>()
            / start.len() as f64
    };
    let limit = -start
        .iter()
        .zip(reward)
        .map(|(logps, rewards)| logps[(0..rewards.len()).max_by(|a, b| rewards[*a].total_cmp(&rewards[*b])).unwrap()])
        .sum::<f64>()
        / start.len() as f64;
    let (mut loss, mut spent) = (f64::INFINITY, 0.0);
    for t in [0.0, 1.0, 10.0, 100.0, 1e3, 1e4] {
        let policy = along(t);
        let next = loss_and_gradient(objective, reward, history, &policy).0;
        let divergence = divergence(&policy);
        assert!(next < loss && divergence >= spent, "loss {loss} then {next}, KL {spent} then {divergence} at t = {t}");
        (loss, spent) = (next, divergence);
    }
    assert!(loss < 0.01 && (spent - limit).abs() < 1e-6, "loss {loss}, KL {spent}, limit {limit}");
}

#[test]
fn separable_labels_have_no_finite_minimiser() {
    let world = World::new(6, 8, 2, -0.5, 11);
    let dpo = build("dpo", json!({"beta": 0.5}));
    check(dpo.as_ref(), &world.rewards[0], std::slice::from_ref(&world.start));

    let first = minimise(dpo.as_ref(), 0.5, &world.rewards[0], std::slice::from_ref(&world.start));
    let second = spo(0.5, &[1.0], &[(0.5, vec![])], "recursive");
    check(second.as_ref(), &world.rewards[1], &[world.start.clone(), first]);
}
