//! Rounds that weigh several dimensions at once: the weights of each step, and what each row's loss counts under them.

use blake3::OutputReader;
use spo_core::PairGradient;

/// The weights that the steps of a phase draw, `w ~ Dirichlet(c, …, c)`: a function of the key and the step alone, so that
/// a run can go on from any step.
#[derive(Debug, Clone, Copy)]
pub struct WeightDraws {
    /// Seed of the run.
    pub seed: u64,
    /// Number of the round in the run.
    pub round: u64,
    /// `c`: below 1 the corners are likelier than the middle.
    pub concentration: f64,
}

impl WeightDraws {
    /// The weights of the step after `done` steps, `[dimensions]`.
    pub fn at(self, done: u64, dimensions: usize) -> Vec<f64> {
        let key = format!("weights {} {} {done}", self.seed, self.round);
        let mut stream = Uniform(blake3::Hasher::new().update(key.as_bytes()).finalize_xof());
        let drawn: Vec<f64> = (0..dimensions).map(|_| stream.log_gamma(self.concentration)).collect();
        // Of logarithms, as tiny concentrations give numbers below the smallest f64.
        let most = drawn.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let shares: Vec<f64> = drawn.iter().map(|log| (log - most).exp()).collect();
        let sum: f64 = shares.iter().sum();
        shares.into_iter().map(|share| share / sum).collect()
    }
}

/// Uniform numbers of a keyed stream.
struct Uniform(OutputReader);

impl Uniform {
    /// In (0, 1).
    fn next(&mut self) -> f64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        ((u64::from_le_bytes(bytes) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// The logarithm of a number of Gamma(shape, 1) (Marsaglia & Tsang 2000); below 1 of that of `shape + 1` times
    /// `u^(1 / shape)`.
    fn log_gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return self.log_gamma(shape + 1.0) + self.next().ln() / shape;
        }
        let d = shape - 1.0 / 3.0;
        let c = (9.0 * d).sqrt().recip();
        loop {
            let (u, angle) = (self.next(), self.next());
            let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
            let v = (1.0 + c * normal).powi(3);
            if v > 0.0 && self.next().ln() < 0.5 * normal * normal + d - d * v + d * v.ln() {
                return (d * v).ln();
            }
        }
    }
}

/// The dimensions that a round weighs, and of which one each of its rows is.
#[derive(Debug, Clone)]
pub struct FrontRows {
    /// The dimensions, in the order of the weights.
    pub dimensions: Vec<String>,
    /// Index of each row's dimension, `[rows]`.
    pub of_row: Vec<usize>,
    /// Where the weights come from.
    pub weighing: Weighing,
}

/// Where the weights of a round come from.
#[derive(Debug, Clone)]
pub enum Weighing {
    /// Each step draws them, and the policy, which has conditional adapters, acts with them. `fresh` says whether it is the
    /// reference at all weights before the first step.
    Drawn {
        /// The draws.
        draws: WeightDraws,
        /// Whether the adapters are fresh.
        fresh: bool,
    },
    /// They stay, `[dimensions]`.
    Fixed(Vec<f64>),
}

impl FrontRows {
    /// The dimension of a row.
    pub fn dimension(&self, row: usize) -> &str {
        &self.dimensions[self.of_row[row]]
    }

    /// What the loss of each of these rows counts under the weights: `wₖ N / Nₖ`, where `Nₖ` of the `N` rows are of its
    /// dimension `k`. The mean over all rows is `Σₖ wₖ ℓₖ` with `ℓₖ` the mean over the rows of `k`; that over a batch
    /// estimates it without bias.
    pub fn factors(&self, rows: &[usize], weights: &[f64]) -> Vec<f64> {
        let mut counts = vec![0.0; self.dimensions.len()];
        self.of_row.iter().for_each(|&dimension| counts[dimension] += 1.0);
        let all = self.of_row.len() as f64;
        let factor = |&row: &usize| weights[self.of_row[row]] * all / counts[self.of_row[row]];
        rows.iter().map(factor).collect()
    }
}

/// Losses and their derivatives times a factor for each pair; rewards stay as they are.
pub(super) fn weigh(gradient: &mut PairGradient, factors: &[f64]) {
    let mut columns = vec![&mut gradient.losses, &mut gradient.d_chosen, &mut gradient.d_rejected];
    columns.extend(&mut gradient.d_sampled);
    if let Some((chosen, rejected)) = &mut gradient.d_sequence_kl {
        columns.extend([chosen, rejected]);
    }
    for column in columns {
        column.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(concentration: f64) -> WeightDraws {
        WeightDraws { seed: 3, round: 1, concentration }
    }

    #[test]
    fn weights_are_of_the_distribution_and_of_key_and_step_alone() {
        for (concentration, dimensions) in [(0.5, 2), (0.5, 3), (2.0, 2), (1.0, 4)] {
            let all: Vec<Vec<f64>> = (0..20_000).map(|step| draws(concentration).at(step, dimensions)).collect();
            for weights in &all {
                assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12 && weights.iter().all(|w| *w >= 0.0));
            }
            for dimension in 0..dimensions {
                let moment = |power| all.iter().map(|w| w[dimension].powi(power)).sum::<f64>() / all.len() as f64;
                let (total, mean) = (concentration * dimensions as f64, 1.0 / dimensions as f64);
                let variance = mean * (1.0 - mean) / (total + 1.0);
                assert!((moment(1) - mean).abs() < 0.01, "{concentration} {dimensions}: {}", moment(1));
                assert!((moment(2) - mean * mean - variance).abs() < 0.01, "{concentration} {dimensions}");
            }
        }
        assert_eq!(draws(0.5).at(7, 3), draws(0.5).at(7, 3));
        assert_ne!(draws(0.5).at(7, 2), draws(0.5).at(8, 2));
        assert_ne!(draws(0.5).at(7, 2), WeightDraws { round: 2, ..draws(0.5) }.at(7, 2));
        assert!(draws(1e-9).at(0, 2).iter().all(|weight| weight.is_finite()));
    }

    #[test]
    fn the_mean_of_all_factors_is_the_weighted_mean_of_the_dimensions() {
        let names = ["a", "b"].map(String::from).to_vec();
        let rows =
            FrontRows { dimensions: names, of_row: vec![0, 1, 0, 0, 1, 0], weighing: Weighing::Fixed(vec![0.3, 0.7]) };
        let (losses, weights) = ([1.0, 2.0, 3.0, 4.0, 6.0, 6.0], [0.3, 0.7]);
        let factors = rows.factors(&[0, 1, 2, 3, 4, 5], &weights);
        let found = factors.iter().zip(losses).map(|(factor, loss)| factor * loss).sum::<f64>() / 6.0;
        assert!((found - (0.3 * 3.5 + 0.7 * 4.0)).abs() < 1e-12, "{found}");
        assert_eq!(rows.factors(&[4], &[1.0, 0.0]), [0.0]);
    }
}
