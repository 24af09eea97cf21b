//! A world of prompts × responses: known rewards, a tabular policy, population loss, Newton's method.

use burn::tensor::Device;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use spo_core::{Objective, PairNumbers, Sides, differentiate, objective};

/// One number per prompt and response.
pub type Table = Vec<Vec<f64>>;

pub struct World {
    /// `log π_0`.
    pub start: Table,
    /// `R_1 … R_n`, correlated with `R_1` by ρ.
    pub rewards: Vec<Table>,
}

pub fn normal(rng: &mut impl Rng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

pub fn map(table: &Table, mut f: impl FnMut(usize, usize, f64) -> f64) -> Table {
    table.iter().enumerate().map(|(x, row)| row.iter().enumerate().map(|(y, v)| f(x, y, *v)).collect()).collect()
}

/// Log-probabilities of unnormalised ones.
pub fn normalised(table: Table) -> Table {
    table
        .into_iter()
        .map(|row| {
            let max = row.iter().copied().fold(f64::MIN, f64::max);
            let log_sum = max + row.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
            row.into_iter().map(|v| v - log_sum).collect()
        })
        .collect()
}

impl World {
    pub fn new(prompts: usize, responses: usize, dimensions: usize, rho: f64, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let empty = vec![vec![0.0; responses]; prompts];
        let start = normalised(map(&empty, |_, _, _| 0.5 * normal(&mut rng)));
        let first = map(&empty, |_, _, _| normal(&mut rng));
        let mut rewards = vec![first.clone()];
        for _ in 1..dimensions {
            rewards.push(map(&first, |_, _, r| rho * r + (1.0 - rho * rho).sqrt() * normal(&mut rng)));
        }
        Self { start, rewards }
    }

    /// The closed form of a round: `π_{n−1} · exp((R_n + Σ λ_i R_i)/α)`.
    pub fn closed_form(&self, previous: &Table, round: usize, alpha: f64, lambda: &[f64]) -> Table {
        normalised(map(previous, |x, y, logp| {
            let held: f64 = lambda.iter().zip(&self.rewards).map(|(l, r)| l * r[x][y]).sum();
            logp + (self.rewards[round - 1][x][y] + held) / alpha
        }))
    }

    /// `E_π[R_i]`, mean over the prompts.
    pub fn expected(&self, policy: &Table, dimension: usize) -> f64 {
        let rows = policy.iter().zip(&self.rewards[dimension - 1]);
        rows.map(|(p, r)| p.iter().zip(r).map(|(p, r)| p.exp() * r).sum::<f64>()).sum::<f64>() / policy.len() as f64
    }
}

pub fn total_variation(a: &Table, b: &Table) -> f64 {
    let rows = a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a.exp() - b.exp()).abs()).sum::<f64>() / 2.0);
    rows.fold(0.0, f64::max)
}

pub fn build(name: &str, options: serde_json::Value) -> Box<dyn Objective> {
    objective::build(name, options.as_object().unwrap()).unwrap()
}

pub fn spo(alpha: f64, lambda: &[f64], earlier: &[(f64, Vec<f64>)], margin: &str) -> Box<dyn Objective> {
    let earlier: Vec<_> = earlier.iter().map(|(alpha, lambda)| json!({"alpha": alpha, "lambda": lambda})).collect();
    build("spo", json!({"alpha": alpha, "lambda": lambda, "earlier": earlier, "margin": margin}))
}

/// Minimises the population loss `Σ_x Σ_{i≠j} σ(R(i) − R(j)) · ℓ(i ≻ j)` by Newton's method from the last of `history`.
///
/// Gradients are those of the objective under test. The curvature is that of a logistic loss with derivative `scale`; it
/// only decides how fast the fixed point is reached.
pub fn minimise(objective: &dyn Objective, scale: f64, reward: &Table, history: &[Table]) -> Table {
    minimise_weighed(objective, scale, &[(1.0, reward)], history)
}

/// The same of the weighted sum of several dimensions' losses, whose labels stand on the same pairs.
pub fn minimise_weighed(objective: &dyn Objective, scale: f64, rewards: &[(f64, &Table)], history: &[Table]) -> Table {
    let (prompts, responses) = (history[0].len(), history[0][0].len());
    let mut index = Vec::new();
    for x in 0..prompts {
        for i in 0..responses {
            index.extend((0..responses).filter(|j| *j != i).map(|j| (x, i, j)));
        }
    }
    let sides = |table: &Table| Sides {
        chosen: index.iter().map(|(x, i, _)| table[*x][*i]).collect::<Vec<_>>(),
        rejected: index.iter().map(|(x, _, j)| table[*x][*j]).collect::<Vec<_>>(),
    };
    let previous = history.last().unwrap();
    let mut policy = previous.clone();
    for _ in 0..40 {
        let Sides { chosen, rejected } = sides(&policy);
        let mut pairs = PairNumbers::new(chosen, rejected);
        pairs.reference = Some(sides(previous));
        pairs.earlier = history.iter().map(&sides).collect();
        let result = differentiate(objective, &pairs, &Device::flex()).unwrap();
        let mut gradient = vec![vec![0.0; responses]; prompts];
        let mut hessian = vec![vec![vec![0.0; responses]; responses]; prompts];
        for (pair, (x, i, j)) in index.iter().copied().enumerate() {
            let labels = rewards.iter().map(|(weight, of)| weight / (1.0 + (of[x][j] - of[x][i]).exp()));
            let label: f64 = labels.sum();
            gradient[x][i] += label * result.d_chosen[pair];
            gradient[x][j] += label * result.d_rejected[pair];
            let s = -result.d_chosen[pair] / scale;
            let weight = label * scale * scale * s * (1.0 - s);
            for (a, b, sign) in [(i, i, 1.0), (j, j, 1.0), (i, j, -1.0), (j, i, -1.0)] {
                hessian[x][a][b] += sign * weight;
            }
        }
        let mut largest: f64 = 0.0;
        for x in 0..prompts {
            // The Laplacian does not see a constant: hold it with a rank-one term.
            for row in &mut hessian[x] {
                row.iter_mut().for_each(|value| *value += scale * scale);
            }
            let step = solve(&mut hessian[x], gradient[x].clone());
            let damp = 1f64.min(4.0 / scale / step.iter().fold(0.0, |m: f64, v| m.max(v.abs())));
            for (value, step) in policy[x].iter_mut().zip(step) {
                *value -= damp * step;
                largest = largest.max(step.abs());
            }
        }
        if largest < 1e-11 {
            break;
        }
    }
    normalised(policy)
}

/// Solves a symmetric positive definite system by elimination.
fn solve(matrix: &mut [Vec<f64>], mut rhs: Vec<f64>) -> Vec<f64> {
    let n = rhs.len();
    for pivot in 0..n {
        let upper = matrix[pivot].clone();
        for row in pivot + 1..n {
            let factor = matrix[row][pivot] / upper[pivot];
            matrix[row].iter_mut().zip(&upper).skip(pivot).for_each(|(a, b)| *a -= factor * b);
            rhs[row] -= factor * rhs[pivot];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|column| matrix[row][column] * rhs[column]).sum();
        rhs[row] = (rhs[row] - known) / matrix[row][row];
    }
    rhs
}

/// Largest spread within a prompt: 0 for a function of the prompt alone.
pub fn spread(table: &Table) -> f64 {
    let spreads = table
        .iter()
        .map(|row| row.iter().copied().fold(f64::MIN, f64::max) - row.iter().copied().fold(f64::MAX, f64::min));
    spreads.fold(0.0, f64::max)
}
