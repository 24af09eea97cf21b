//! Every round's minimiser is the closed form, for 2, 3 and 4 dimensions.

use crate::world::{Table, World, map, minimise, spo, spread, total_variation};

const LAMBDA: [[f64; 3]; 4] = [[0.0, 0.0, 0.0], [0.7, 0.0, 0.0], [0.4, 1.1, 0.0], [0.3, 0.0, 0.8]];
const ALPHA: [f64; 4] = [0.5, 0.4, 0.8, 0.6];

fn check(dimensions: usize, rho: f64) {
    let world = World::new(50, 32, dimensions, rho, 7 + dimensions as u64);
    let mut history = vec![world.start.clone()];
    let mut earlier: Vec<(f64, Vec<f64>)> = Vec::new();
    let mut rewards: Vec<Table> = Vec::new();
    for round in 1..=dimensions {
        let (alpha, lambda) = (ALPHA[round - 1], &LAMBDA[round - 1][..round - 1]);
        let objective = spo(alpha, lambda, &earlier, "recursive");
        let policy = minimise(objective.as_ref(), alpha, &world.rewards[round - 1], &history);
        let previous = history.last().unwrap();
        let exact = world.closed_form(previous, round, alpha, lambda);
        let distance = total_variation(&policy, &exact);
        assert!(distance < 1e-6, "round {round}, ρ {rho}: total variation {distance:e}");

        let implicit = map(&policy, |x, y, logp| {
            let held: f64 = lambda.iter().zip(&rewards).map(|(l, r)| l * r[x][y]).sum();
            alpha * (logp - previous[x][y]) - held
        });
        let error = spread(&map(&implicit, |x, y, r| r - world.rewards[round - 1][x][y]));
        assert!(error < 1e-6, "round {round}: r̂ − R varies by {error:e} within a prompt");
        rewards.push(implicit);
        earlier.push((alpha, lambda.to_vec()));
        history.push(policy);
    }
}

#[test]
fn two_dimensions() {
    [-0.8, -0.5, 0.0, 0.5].into_iter().for_each(|rho| check(2, rho));
}

#[test]
fn three_dimensions() {
    [-0.8, -0.5, 0.0, 0.5].into_iter().for_each(|rho| check(3, rho));
}

#[test]
fn four_dimensions() {
    [-0.8, -0.5, 0.0, 0.5].into_iter().for_each(|rho| check(4, rho));
}
