//! Shape of a list of numbers: quantiles and a histogram, for margins and for the margin offset `c` of a round.

use serde::{Deserialize, Serialize};

use crate::EvalError;
use crate::bootstrap::quantile;

/// `|c|` above which a pair's loss counts as saturated: its weight at step 0 is below 0.007 or above 0.993.
pub const SATURATION: f64 = 5.0;

/// Number of bars of a histogram.
const BARS: usize = 24;

/// A list of numbers in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// What the numbers are.
    pub name: String,
    /// How many there are.
    pub count: usize,
    /// Mean.
    pub mean: f64,
    /// Standard deviation (divided by `count`).
    pub deviation: f64,
    /// Quantiles at 0, 5, 25, 50, 75, 95 and 100 %.
    pub quantiles: [f64; 7],
    /// Share of values with a magnitude above [`SATURATION`], 0 to 1.
    pub saturated: f64,
    /// Counts in equal bins from the smallest to the largest value.
    pub histogram: Vec<usize>,
}

impl Distribution {
    /// Describes `values`.
    ///
    /// # Errors
    /// An empty list, or a value that is not finite.
    pub fn of(name: &str, values: &[f64]) -> Result<Self, EvalError> {
        let name = name.to_owned();
        if values.is_empty() {
            return Err(EvalError::NoValues { name });
        }
        if let Some((index, &found)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(EvalError::NonFiniteValue { name, index, found });
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let mean = sorted.iter().sum::<f64>() / count as f64;
        let variance = sorted.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count as f64;
        let quantiles = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0].map(|probability| quantile(&sorted, probability));
        let saturated = sorted.iter().filter(|value| value.abs() > SATURATION).count() as f64 / count as f64;
        let (low, width) = (quantiles[0], (quantiles[6] - quantiles[0]) / BARS as f64);
        let mut histogram = vec![0; if width > 0.0 { BARS } else { 1 }];
        for value in &sorted {
            let bar = if width > 0.0 { ((value - low) / width) as usize } else { 0 };
            let last = histogram.len() - 1;
            histogram[bar.min(last)] += 1;
        }
        Ok(Self { name, count, mean, deviation: variance.sqrt(), quantiles, saturated, histogram })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn known_values() {
        let shape = Distribution::of("c", &[-6.0, 0.0, 0.0, 6.0]).unwrap();
        assert_eq!((shape.count, shape.mean, shape.saturated), (4, 0.0, 0.5));
        assert!((shape.deviation - 18f64.sqrt()).abs() < 1e-12);
        assert_eq!((shape.quantiles[0], shape.quantiles[3], shape.quantiles[6]), (-6.0, 0.0, 6.0));
        assert_eq!(shape.histogram.iter().sum::<usize>(), 4);
        assert_eq!((shape.histogram[0], shape.histogram[BARS - 1]), (1, 1));
    }

    #[test]
    fn constant_empty_and_broken_lists() {
        assert_eq!(Distribution::of("c", &[2.0; 3]).unwrap().histogram, [3]);
        assert!(matches!(Distribution::of("c", &[]), Err(EvalError::NoValues { .. })));
        assert!(matches!(Distribution::of("c", &[0.0, f64::NAN]), Err(EvalError::NonFiniteValue { index: 1, .. })));
    }
}
