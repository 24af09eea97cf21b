//! Differences of two arms over the seeds that they share: is one better, are they equivalent?

use super::student;
use serde::{Deserialize, Serialize};

/// Paired t tests of the differences `a − b` over seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PairedTest {
    /// Seeds on which both arms have a value.
    pub seeds: usize,
    /// Mean difference.
    pub mean: f64,
    /// Standard deviation of the differences.
    pub deviation: f64,
    /// 95 % interval of the mean difference.
    pub interval: (f64, f64),
    /// Two-sided p of "no difference".
    pub p_difference: f64,
    /// p of "they differ by the margin or more": the larger of two one-sided tests (TOST, Schuirmann 1987).
    pub p_equivalence: f64,
}

impl PairedTest {
    /// The tests of these differences; `None` of fewer than two.
    pub fn of(differences: &[f64], margin: f64) -> Option<Self> {
        let count = differences.len();
        if count < 2 {
            return None;
        }
        let n = count as f64;
        let mean = differences.iter().sum::<f64>() / n;
        let deviation = (differences.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let (error, freedom) = (deviation / n.sqrt(), n - 1.0);
        // Without any spread a difference of 0 is 0 for certain, and every other is what it is.
        let t = |shift: f64| if error > 0.0 { shift / error } else { shift.signum() * f64::INFINITY };
        let half = error * student::quantile(0.975, freedom);
        let p_difference = if mean == 0.0 { 1.0 } else { 2.0 * student::cdf(-t(mean.abs()), freedom) };
        let above_low = 1.0 - student::cdf(t(mean + margin), freedom);
        let below_high = student::cdf(t(mean - margin), freedom);
        let p_equivalence = above_low.max(below_high);
        Some(Self { seeds: count, mean, deviation, interval: (mean - half, mean + half), p_difference, p_equivalence })
    }
}

/// p values after Holm's correction for testing all of them (Holm 1979), in their order.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let (mut corrected, mut largest) = (vec![0.0; p.len()], 0.0f64);
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max(p[index] * (p.len() - rank) as f64).min(1.0);
        corrected[index] = largest;
    }
    corrected
}

/// The smallest mean difference that this many seeds show with a probability of 80 % at 5 %, two-sided, where the differences
/// have this standard deviation; infinite with one seed.
pub fn detectable(seeds: usize, deviation: f64) -> f64 {
    if seeds < 2 {
        return f64::INFINITY;
    }
    let freedom = seeds as f64 - 1.0;
    (student::quantile(0.975, freedom) + student::quantile(0.8, freedom)) * deviation / (seeds as f64).sqrt()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn two_differences_are_tested_in_closed_form() {
        // One degree of freedom: t = 3 / 1 of (2, 4), and the distribution is Cauchy's.
        let test = PairedTest::of(&[2.0, 4.0], 5.0).unwrap();
        assert_eq!((test.mean, test.seeds), (3.0, 2));
        assert!((test.deviation - 2f64.sqrt()).abs() < 1e-15);
        let cauchy = |t: f64| 0.5 + t.atan() / std::f64::consts::PI;
        assert!((test.p_difference - 2.0 * cauchy(-3.0)).abs() < 1e-12);
        assert!((test.p_equivalence - cauchy(-2.0)).abs() < 1e-12);
        assert!((test.interval.1 - (3.0 + 12.706_204_736)).abs() < 1e-6);
    }

    #[test]
    fn what_does_not_vary_is_known() {
        let same = PairedTest::of(&[0.0; 3], 0.02).unwrap();
        assert_eq!((same.p_difference, same.p_equivalence), (1.0, 0.0));
        let other = PairedTest::of(&[0.5; 3], 0.02).unwrap();
        assert_eq!((other.p_difference, other.p_equivalence, other.interval), (0.0, 1.0, (0.5, 0.5)));
        assert_eq!(PairedTest::of(&[0.5], 0.02), None);
    }

    #[test]
    fn holm_multiplies_by_the_tests_that_are_left() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-15, "{corrected:?}");
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    }

    #[test]
    fn more_seeds_show_less() {
        // 2.776 445 + 0.940 965, over √5.
        assert!((detectable(5, 1.0) - 1.662_48).abs() < 1e-4, "{}", detectable(5, 1.0));
        assert!(detectable(10, 1.0) < detectable(5, 1.0));
        assert_eq!(detectable(1, 1.0), f64::INFINITY);
    }
}
