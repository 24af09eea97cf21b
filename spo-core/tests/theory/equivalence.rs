//! What SPO is equal to in the exact limit, and the order law.

use serde_json::json;

use crate::world::{World, build, map, minimise, minimise_weighed, normalised, spo, spread, total_variation};

#[test]
fn two_rounds_equal_sequential_dpo_with_another_first_beta() {
    let (beta, alpha, lambda) = (0.5, 0.4, 0.8);
    let world = World::new(20, 12, 2, -0.5, 21);
    let dpo = |beta: f64| build("dpo", json!({"beta": beta}));
    let first = minimise(dpo(beta).as_ref(), beta, &world.rewards[0], std::slice::from_ref(&world.start));
    let objective = spo(alpha, &[lambda], &[(beta, vec![])], "recursive");
    let held = minimise(objective.as_ref(), alpha, &world.rewards[1], &[world.start.clone(), first]);

    let other = 1.0 / (1.0 / beta + lambda / alpha);
    let first = minimise(dpo(other).as_ref(), other, &world.rewards[0], std::slice::from_ref(&world.start));
    let second = minimise(dpo(alpha).as_ref(), alpha, &world.rewards[1], &[first]);
    assert!(total_variation(&held, &second) < 1e-6);
}

#[test]
fn two_rounds_equal_modpo_against_the_start() {
    let (beta, alpha, lambda) = (0.5, 0.4, 0.8);
    let world = World::new(20, 12, 2, -0.5, 24);
    let first = minimise(
        build("dpo", json!({"beta": beta})).as_ref(),
        beta,
        &world.rewards[0],
        std::slice::from_ref(&world.start),
    );
    let objective = spo(alpha, &[lambda], &[(beta, vec![])], "recursive");
    let held = minimise(objective.as_ref(), alpha, &world.rewards[1], &[world.start.clone(), first.clone()]);

    // β_m = w·α and (1−w)/β_m = 1/β_1 + λ/α fix the weight w.
    let weight = 1.0 / (1.0 + alpha * (1.0 / beta + lambda / alpha));
    let options = json!({"beta": weight * alpha, "weight": weight, "margin-beta": beta});
    let modpo = minimise(build("modpo", options).as_ref(), alpha, &world.rewards[1], &[world.start.clone(), first]);
    assert!(total_variation(&held, &modpo) < 1e-6);
}

#[test]
fn sequential_dpo_does_not_depend_on_the_order() {
    let world = World::new(10, 10, 2, 0.3, 22);
    let dpo = build("dpo", json!({"beta": 0.5}));
    let both = |order: [usize; 2]| {
        let first = minimise(dpo.as_ref(), 0.5, &world.rewards[order[0]], std::slice::from_ref(&world.start));
        minimise(dpo.as_ref(), 0.5, &world.rewards[order[1]], &[first])
    };
    assert!(total_variation(&both([0, 1]), &both([1, 0])) < 1e-6);
}

/// With two responses a preference is one number a prompt: the joint round's reward is the logit of the mean preference, and the
/// next round holds that one.
#[test]
fn the_reward_of_a_joint_round_is_the_logit_of_the_mean_preference() {
    let (beta, alpha, lambda, weights) = (0.5, 0.4, 0.8, [0.7, 0.3]);
    let world = World::new(40, 2, 3, -0.4, 25);
    let rewards = [(weights[0], &world.rewards[0]), (weights[1], &world.rewards[1])];
    let dpo = build("dpo", json!({"beta": beta}));
    let first = minimise_weighed(dpo.as_ref(), beta, &rewards, std::slice::from_ref(&world.start));
    let joint = |x: usize| {
        let prefers = |of: &[f64]| 1.0 / (1.0 + (of[1] - of[0]).exp());
        let mean: f64 = rewards.iter().map(|(weight, reward)| weight * prefers(&reward[x])).sum();
        (mean / (1.0 - mean)).ln()
    };
    for (x, row) in first.iter().enumerate() {
        let found = beta * ((row[0] - row[1]) - (world.start[x][0] - world.start[x][1]));
        assert!((found - joint(x)).abs() < 1e-6, "{found} {}", joint(x));
    }
    let objective = spo(alpha, &[lambda], &[(beta, vec![])], "recursive");
    let held = minimise(objective.as_ref(), alpha, &world.rewards[2], &[world.start.clone(), first.clone()]);
    let expected = normalised(map(&first, |x, y, logp| {
        let reward = if y == 0 { joint(x) } else { 0.0 };
        logp + (world.rewards[2][x][y] + lambda * reward) / alpha
    }));
    assert!(total_variation(&held, &expected) < 1e-6);
}

#[test]
fn constant_lambda_weighs_early_dimensions_more() {
    let (alpha, lambda, rounds) = (0.7, 1.0, 4);
    let world = World::new(10, 10, rounds, 0.0, 23);
    let mut history = vec![world.start.clone()];
    for round in 1..=rounds {
        let objective = build("spo", json!({"alpha": alpha, "lambda": lambda}));
        let policy = minimise(objective.as_ref(), alpha, &world.rewards[round - 1], &history);
        history.push(policy);
    }
    // log π_n/π_0 = Σ_k (1 + λ(n−k))/α · R_k + const(x): 4, 3, 2, 1 over α.
    let rest = map(&history[rounds], |x, y, logp| {
        let explained: f64 =
            (1..=rounds).map(|k| (1.0 + lambda * (rounds - k) as f64) / alpha * world.rewards[k - 1][x][y]).sum();
        logp - world.start[x][y] - explained
    });
    assert!(spread(&rest) < 1e-6, "{}", spread(&rest));
}
