//! Seeded percentile bootstrap, optionally clustered.
//!
//! Pairs that share a prompt are not independent, so whole prompts are resampled (the cluster bootstrap); without clusters every
//! value is its own cluster. Percentile method: Efron, "Bootstrap methods: another look at the jackknife" (1979).

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::EvalError;

/// Probability left out at each end of an interval: 95 % intervals.
pub const TAIL: f64 = 0.025;

/// Fewest resamples that put at least one resample into each tail.
pub const MINIMUM_RESAMPLES: usize = 40;

/// How intervals are resampled. The same seed gives the same interval on every machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Number of resamples, at least [`MINIMUM_RESAMPLES`].
    pub resamples: usize,
    /// Seed of the ChaCha8 stream.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 2000, seed: 0 }
    }
}

/// One unit that is drawn as a whole: its number of values and the sums of `K` quantities over them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cluster<const K: usize> {
    /// Number of values in the cluster.
    pub count: usize,
    /// Sum of each quantity over the cluster's values.
    pub sums: [f64; K],
}

/// Groups `values` by `key`; the clusters come in the order of the keys.
pub fn clusters<Key: Ord, const K: usize>(values: impl IntoIterator<Item = (Key, [f64; K])>) -> Vec<Cluster<K>> {
    let mut groups: BTreeMap<Key, Cluster<K>> = BTreeMap::new();
    for (key, value) in values {
        let cluster = groups.entry(key).or_insert(Cluster { count: 0, sums: [0.0; K] });
        cluster.count += 1;
        for (sum, term) in cluster.sums.iter_mut().zip(value) {
            *sum += term;
        }
    }
    groups.into_values().collect()
}

impl Bootstrap {
    /// 95 % interval of the mean of each of the `K` quantities, `Σ sums / Σ count` over resampled clusters.
    ///
    /// # Errors
    /// [`EvalError::TooFewResamples`], or [`EvalError::NoValues`] without clusters.
    pub fn intervals<const K: usize>(&self, clusters: &[Cluster<K>]) -> Result<[(f64, f64); K], EvalError> {
        if self.resamples < MINIMUM_RESAMPLES {
            return Err(EvalError::TooFewResamples { found: self.resamples, expected: MINIMUM_RESAMPLES });
        }
        if clusters.iter().all(|cluster| cluster.count == 0) {
            return Err(EvalError::NoValues { name: "bootstrap".to_owned() });
        }
        let clusters: Vec<_> = clusters.iter().filter(|cluster| cluster.count > 0).collect();
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut means: [Vec<f64>; K] = std::array::from_fn(|_| Vec::with_capacity(self.resamples));
        for _ in 0..self.resamples {
            let mut count = 0;
            let mut sums = [0.0; K];
            for _ in 0..clusters.len() {
                // u32 draws keep the stream equal on 32- and 64-bit machines.
                let drawn = clusters[random.random_range(0..clusters.len() as u32) as usize];
                count += drawn.count;
                for (sum, term) in sums.iter_mut().zip(drawn.sums) {
                    *sum += term;
                }
            }
            for (list, sum) in means.iter_mut().zip(sums) {
                list.push(sum / count as f64);
            }
        }
        Ok(means.map(|mut list| {
            list.sort_by(f64::total_cmp);
            (quantile(&list, TAIL), quantile(&list, 1.0 - TAIL))
        }))
    }

    /// 95 % interval of each of some figures, of which `figures` has as many every time: it is told how often each of the
    /// clusters was drawn.
    ///
    /// # Errors
    /// As [`Bootstrap::intervals`], or those of `figures`.
    pub fn statistics(
        &self,
        clusters: usize,
        mut figures: impl FnMut(&[usize]) -> Result<Vec<f64>, EvalError>,
    ) -> Result<Vec<(f64, f64)>, EvalError> {
        if self.resamples < MINIMUM_RESAMPLES {
            return Err(EvalError::TooFewResamples { found: self.resamples, expected: MINIMUM_RESAMPLES });
        }
        if clusters == 0 {
            return Err(EvalError::NoValues { name: "bootstrap".to_owned() });
        }
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut all: Vec<Vec<f64>> = vec![];
        for _ in 0..self.resamples {
            let mut times = vec![0; clusters];
            (0..clusters).for_each(|_| times[random.random_range(0..clusters as u32) as usize] += 1);
            let found = figures(&times)?;
            all.resize(found.len(), vec![]);
            all.iter_mut().zip(found).for_each(|(list, value)| list.push(value));
        }
        let interval = |mut list: Vec<f64>| {
            list.sort_by(f64::total_cmp);
            (quantile(&list, TAIL), quantile(&list, 1.0 - TAIL))
        };
        Ok(all.into_iter().map(interval).collect())
    }

    /// 95 % interval of the mean of `values`, each its own cluster.
    ///
    /// # Errors
    /// As [`Bootstrap::intervals`].
    pub fn mean(&self, values: &[f64]) -> Result<(f64, f64), EvalError> {
        let clusters: Vec<_> = values.iter().map(|&value| Cluster { count: 1, sums: [value] }).collect();
        self.intervals(&clusters).map(|[interval]| interval)
    }
}

/// Quantile of a sorted, non-empty list by linear interpolation between order statistics.
pub(crate) fn quantile(sorted: &[f64], probability: f64) -> f64 {
    let position = probability * (sorted.len() - 1) as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    below + (above - below) * position.fract()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn interval_of_a_normal_mean_matches_the_closed_form() {
        // Binary values with mean 1/2: the bootstrap variance of the mean is exactly 1/(4n).
        let values: Vec<f64> = (0..400).map(|index| f64::from(index % 2)).collect();
        let (low, high) = Bootstrap { resamples: 20_000, seed: 3 }.mean(&values).unwrap();
        let half = 1.959_964 * (0.25f64 / 400.0).sqrt();
        assert!((low - (0.5 - half)).abs() < 3e-3, "{low}");
        assert!((high - (0.5 + half)).abs() < 3e-3, "{high}");
    }

    #[test]
    fn clusters_of_equal_values_widen_the_interval_by_the_root_of_their_size() {
        let values = (0..400).map(|index| (index / 4, [f64::from((index / 4) % 2)]));
        let [(low, high)] = Bootstrap { resamples: 20_000, seed: 4 }.intervals(&clusters(values)).unwrap();
        let half = 1.959_964 * (0.25f64 / 100.0).sqrt();
        assert!(((high - low) / 2.0 - half).abs() < 5e-3, "{low} {high}");
    }

    #[test]
    fn constant_values_have_a_point_interval_and_the_seed_decides() {
        let bootstrap = Bootstrap::default();
        assert_eq!(bootstrap.mean(&[2.0; 9]).unwrap(), (2.0, 2.0));
        let values: Vec<f64> = (1..30).map(|index| f64::from(index).sqrt()).collect();
        assert_eq!(bootstrap.mean(&values).unwrap(), bootstrap.mean(&values).unwrap());
        assert_ne!(bootstrap.mean(&values).unwrap(), Bootstrap { seed: 1, ..bootstrap }.mean(&values).unwrap());
    }

    #[test]
    fn two_values_have_the_known_tails() {
        // Means of two draws from {0, 1}: 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
        assert_eq!(Bootstrap::default().mean(&[0.0, 1.0]).unwrap(), (0.0, 1.0));
    }

    #[test]
    fn bad_requests_are_errors() {
        assert!(matches!(
            Bootstrap { resamples: 3, seed: 0 }.mean(&[1.0]),
            Err(EvalError::TooFewResamples { found: 3, .. })
        ));
        assert!(matches!(Bootstrap::default().mean(&[]), Err(EvalError::NoValues { .. })));
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[5.0], 0.3), 5.0);
    }
}
