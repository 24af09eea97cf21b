//! λ as a multiplier: dual ascent reaches the λ that bisection finds, with one and with two constraints.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spo_core::dual::{Ascent, Dual, start_value};

use crate::world::{Table, World};

fn bisect(mut low: f64, mut high: f64, mut slack: impl FnMut(f64) -> f64) -> f64 {
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if slack(middle) < 0.0 { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

fn first_rounds(world: &World, rounds: usize, alpha: f64) -> Table {
    (1..=rounds)
        .fold(world.start.clone(), |policy, round| world.closed_form(&policy, round, alpha, &vec![0.0; round - 1]))
}

#[test]
fn a_constraint_on_one_dimension() {
    let alpha = 0.5;
    let world = World::new(50, 32, 2, -0.6, 31);
    let first = first_rounds(&world, 1, alpha);
    let floor = 0.9 * world.expected(&first, 1);
    let slack = |lambda: f64| world.expected(&world.closed_form(&first, 2, alpha, &[lambda]), 1) - floor;
    let exact = bisect(0.0, 5.0, slack);
    assert!(slack(0.0) < 0.0 && slack(1.0) > 0.0 && (0.1..1.0).contains(&exact), "{exact}");
    let mut lambda: f64 = 0.0;
    for _ in 0..300 {
        lambda = (lambda - 0.5 * slack(lambda)).max(0.0);
    }
    assert!((lambda - exact).abs() < 1e-6, "{lambda} {exact}");
}

#[test]
fn constraints_on_two_dimensions() {
    let alpha = 0.5;
    let world = World::new(50, 32, 3, -0.4, 32);
    let second = first_rounds(&world, 2, alpha);
    let floors = [0.95 * world.expected(&second, 1), 0.95 * world.expected(&second, 2)];
    let slack = |lambda: [f64; 2], dimension: usize| {
        world.expected(&world.closed_form(&second, 3, alpha, &lambda), dimension) - floors[dimension - 1]
    };
    let inner = |first: f64| bisect(-5.0, 5.0, |second| slack([first, second], 2));
    let first = bisect(-5.0, 5.0, |first| slack([first, inner(first)], 1));
    let exact = [first.max(0.0), inner(first).max(0.0)];
    let mut lambda = [0.0f64; 2];
    for _ in 0..2000 {
        let slacks = [slack(lambda, 1), slack(lambda, 2)];
        for (lambda, slack) in lambda.iter_mut().zip(slacks) {
            *lambda = (*lambda - 0.5 * slack).max(0.0);
        }
    }
    assert!(first > 0.0 && exact[1] > 0.0, "both constraints should bind here: {exact:?}");
    assert!((lambda[0] - exact[0]).abs() < 1e-6 && (lambda[1] - exact[1]).abs() < 1e-6, "{lambda:?} {exact:?}");
}

/// `Δr̂_k` of the held rounds on the pairs of the world, from the coded objective: what is left of `c` when one λ is 1.
fn held(objective: &dyn spo_core::Objective, pairs: &spo_core::PairNumbers, dimensions: usize) -> Vec<Vec<f64>> {
    let of = |dimension: usize| {
        let lambda: Vec<f64> = (0..dimensions).map(|other| f64::from(u8::from(other == dimension))).collect();
        let alone = objective.with_lambda(dimensions, &lambda).unwrap();
        spo_core::differentiate(alone.as_ref(), pairs, &burn::tensor::Device::flex()).unwrap().margin_offset.unwrap()
    };
    (0..dimensions).map(of).collect()
}

#[test]
fn the_coded_ascent_meets_two_constraints() {
    // The minimiser follows λ at once, with a slope of Var(R)/α = 2: gain times slope must stay below 1.
    let (alpha, ascent) = (0.5, Ascent { rate: 0.3, gain: 0.2, most: 20.0 });
    let world = World::new(50, 32, 3, -0.4, 32);
    let first = world.closed_form(&world.start, 1, alpha, &[]);
    let second = world.closed_form(&first, 2, alpha, &[0.0]);
    let floors = [0.95 * world.expected(&second, 1), 0.95 * world.expected(&second, 2)];
    let slack = |lambda: &[f64], dimension: usize| {
        world.expected(&world.closed_form(&second, 3, alpha, lambda), dimension) - floors[dimension - 1]
    };
    let inner = |first: f64| bisect(-5.0, 5.0, |second| slack(&[first, second], 2));
    let exact = bisect(-5.0, 5.0, |first| slack(&[first, inner(first)], 1));
    let exact = [exact, inner(exact)];
    let mut dual = Dual::new(&[0.0, 0.0], ascent.most);
    for _ in 0..2000 {
        let violations = [-slack(dual.lambda(), 1), -slack(dual.lambda(), 2)];
        dual.ascend(&violations, &ascent);
    }
    let reached = dual.lambda().to_vec();
    assert!(exact[0] > 0.0 && exact[1] > 0.0, "both constraints bind: {exact:?}");
    for (reached, exact) in reached.iter().zip(exact) {
        assert!((reached - exact).abs() < 1e-6, "{reached} {exact}");
    }
    // The price of a bound is its multiplier: the derivative of the round's optimum, by central differences.
    let value = |floors: [f64; 2]| {
        let mut dual = Dual::new(&reached, ascent.most);
        for _ in 0..2000 {
            let policy = world.closed_form(&second, 3, alpha, dual.lambda());
            let violations = [floors[0] - world.expected(&policy, 1), floors[1] - world.expected(&policy, 2)];
            dual.ascend(&violations, &ascent);
        }
        let policy = world.closed_form(&second, 3, alpha, dual.lambda());
        let kl = |x: usize, y: usize| policy[x][y].exp() * (policy[x][y] - second[x][y]);
        let distance: f64 = (0..50).flat_map(|x| (0..32).map(move |y| (x, y))).map(|(x, y)| kl(x, y)).sum();
        world.expected(&policy, 3) - alpha * distance / 50.0
    };
    for dimension in 0..2 {
        let moved = |by: f64| {
            let mut moved = floors;
            moved[dimension] += by;
            value(moved)
        };
        let price = (moved(1e-4) - moved(-1e-4)) / 2e-4;
        assert!((price + exact[dimension]).abs() < 1e-4, "{price} {exact:?}");
    }
}

#[test]
fn on_sampled_pairs_the_bound_is_met_within_its_interval() {
    let (alpha, ascent, pairs) = (0.5, Ascent { rate: 1.0, gain: 2.0, most: 20.0 }, 4000);
    let world = World::new(50, 32, 2, -0.6, 31);
    let first = world.closed_form(&world.start, 1, alpha, &[]);
    // Pairs of dimension 1 labelled by Bradley–Terry: one set drives λ, another one judges.
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut sampled = || -> Vec<(usize, usize, usize)> {
        let one = |_| {
            let (x, mut i, mut j) = (rng.random_range(0..50), rng.random_range(0..32), rng.random_range(0..31));
            j += usize::from(j >= i);
            let (a, b) = (world.rewards[0][x][i], world.rewards[0][x][j]);
            if rng.random::<f64>() > 1.0 / (1.0 + (b - a).exp()) {
                (i, j) = (j, i);
            }
            (x, i, j)
        };
        (0..pairs).map(one).collect()
    };
    let (drive, judge) = (sampled(), sampled());
    let accuracy = |policy: &Table, pairs: &[(usize, usize, usize)]| {
        let ratio = |x: usize, y: usize| policy[x][y] - world.start[x][y];
        pairs.iter().filter(|(x, i, j)| ratio(*x, *i) > ratio(*x, *j)).count() as f64 / pairs.len() as f64
    };
    let bound = accuracy(&first, &drive) - 0.03;
    let policy = |lambda: f64| world.closed_form(&first, 2, alpha, &[lambda]);
    assert!(accuracy(&policy(0.0), &drive) < bound - 0.02, "the bound binds");
    let mut dual = Dual::new(&[0.0], ascent.most);
    for _ in 0..400 {
        let violation = bound - accuracy(&policy(dual.lambda()[0]), &drive);
        dual.ascend(&[violation], &ascent);
    }
    let reached = accuracy(&policy(dual.lambda()[0]), &judge) - (accuracy(&first, &judge) - 0.03);
    // Two accuracies on the same pairs differ by the error of the pairs on which they differ, and the bound is one of a sample.
    let error = 1.96 * (2.0 * 0.1 / pairs as f64).sqrt();
    assert!(reached.abs() < error, "{reached} {error}");
}

#[test]
fn the_start_value_is_the_first_order_rule() {
    let (alpha, beta) = (0.5, 0.5);
    let world = World::new(50, 32, 2, -0.6, 31);
    let first = world.closed_form(&world.start, 1, beta, &[]);
    // Pairs of two answers of the policy that the round starts from, both ways with the chance of their label.
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let draw = |rng: &mut ChaCha8Rng, row: &[f64]| {
        let mut left = rng.random::<f64>();
        row.iter().position(|logp| {
            left -= logp.exp();
            left < 0.0
        })
    };
    let (mut chosen, mut rejected) = (vec![], vec![]);
    while chosen.len() < 60_000 {
        let x = rng.random_range(0..50);
        let (Some(mut i), Some(mut j)) = (draw(&mut rng, &first[x]), draw(&mut rng, &first[x])) else { continue };
        let (a, b) = (world.rewards[1][x][i], world.rewards[1][x][j]);
        if rng.random::<f64>() > 1.0 / (1.0 + (b - a).exp()) {
            (i, j) = (j, i);
        }
        chosen.push((x, i));
        rejected.push((x, j));
    }
    let of = |table: &Table, side: &[(usize, usize)]| side.iter().map(|(x, y)| table[*x][*y]).collect::<Vec<f64>>();
    let sides = |table: &Table| spo_core::Sides { chosen: of(table, &chosen), rejected: of(table, &rejected) };
    let mut pairs = spo_core::PairNumbers::new(of(&first, &chosen), of(&first, &rejected));
    pairs.reference = Some(sides(&first));
    pairs.earlier = vec![sides(&world.start), sides(&first)];
    let objective = crate::world::spo(alpha, &[1.0], &[(beta, vec![])], "recursive");
    let found = start_value(&held(objective.as_ref(), &pairs, 1), &vec![0.0; chosen.len()])[0];
    let mean = |f: &dyn Fn(usize, usize) -> f64, x: usize| (0..32).map(|y| first[x][y].exp() * f(x, y)).sum::<f64>();
    let (mut covariance, mut variance) = (0.0, 0.0);
    for x in 0..50 {
        let [one, two] = [0, 1].map(|k| mean(&|x, y| world.rewards[k][x][y], x));
        covariance += mean(&|x, y| (world.rewards[0][x][y] - one) * (world.rewards[1][x][y] - two), x);
        variance += mean(&|x, y| (world.rewards[0][x][y] - one).powi(2), x);
    }
    let rule = -covariance / variance;
    // A label's mean is tanh(ΔR/2), less than ΔR/2: with rewards of this size the value is some way below the rule.
    assert!((0.6 * rule..rule + 0.02).contains(&found), "{found}, first order {rule}");
    // λ enters c linearly, so what is cached stays valid.
    let of_two = objective.with_lambda(1, &[2.0]).unwrap();
    let result = spo_core::differentiate(of_two.as_ref(), &pairs, &burn::tensor::Device::flex()).unwrap();
    let rewards = held(objective.as_ref(), &pairs, 1);
    for (c, reward) in result.margin_offset.unwrap().iter().zip(&rewards[0]) {
        assert!((c - 2.0 * reward).abs() < 1e-12);
    }
}
