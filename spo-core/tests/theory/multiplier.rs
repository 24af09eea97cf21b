//! λ as a multiplier: dual ascent reaches the λ that bisection finds, with one and with two constraints.

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
