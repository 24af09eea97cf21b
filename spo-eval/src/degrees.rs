//! How well preference degrees are told apart, beside what an answer's length alone tells.

use serde::{Deserialize, Serialize};

/// How well a head tells the degrees of held-out answers apart. Rates are from 0 to 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DegreeScore {
    /// The policy whose hidden states the head reads.
    pub policy: String,
    /// Degrees; by chance the rate is 1 / degrees.
    pub degrees: usize,
    /// Training pairs whose chosen answer has degrees.
    pub pairs: usize,
    /// Training pairs without: too few key phrases, or a text that its tokenizer does not write in the same tokens again.
    pub left_out: usize,
    /// Held-out answers, of all degrees.
    pub answers: usize,
    /// Of them, those whose degree the head names.
    pub accuracy: f64,
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// Those whose degree a logistic regression on the answer's length names, fitted to the training answers.
    pub length_accuracy: f64,
}

/// Training answers that the regression on lengths is fitted to, at most.
const MOST: usize = 8192;
/// Steps of gradient descent that it takes; features have mean 0 and deviation 1.
const STEPS: usize = 1000;
const RATE: f64 = 0.2;

/// Share of `test` whose class a softmax regression on the logarithm of the length and its square names, fitted to `train`; each
/// is a length and a class. `None` where one of them is empty.
pub fn length_accuracy(train: &[(usize, usize)], test: &[(usize, usize)], classes: usize) -> Option<f64> {
    if train.is_empty() || test.is_empty() {
        return None;
    }
    let stride = train.len().div_ceil(MOST);
    let logarithm = |length: usize| (1.0 + length as f64).ln();
    let lengths: Vec<f64> = train.iter().step_by(stride).map(|(length, _)| logarithm(*length)).collect();
    let (mean, deviation) = spread(&lengths);
    let plain = |length: usize| (logarithm(length) - mean) / deviation;
    let squares: Vec<f64> = train.iter().step_by(stride).map(|(length, _)| plain(*length).powi(2)).collect();
    let (square_mean, square_deviation) = spread(&squares);
    let features = |length: usize| [1.0, plain(length), (plain(length).powi(2) - square_mean) / square_deviation];
    let rows: Vec<([f64; 3], usize)> =
        train.iter().step_by(stride).map(|(length, class)| (features(*length), *class)).collect();
    let weights = fit(&rows, classes);
    let right = test.iter().filter(|(length, class)| named(&weights, &features(*length)) == *class).count();
    Some(right as f64 / test.len() as f64)
}

/// Mean, and deviation or 1 where there is none.
fn spread(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    (mean, if deviation > 0.0 { deviation } else { 1.0 })
}

fn logits(weights: &[[f64; 3]], features: &[f64; 3]) -> Vec<f64> {
    weights.iter().map(|row| row.iter().zip(features).map(|(weight, x)| weight * x).sum()).collect()
}

/// The first class of the largest logit.
fn named(weights: &[[f64; 3]], features: &[f64; 3]) -> usize {
    let logits = logits(weights, features);
    (1..logits.len()).fold(0, |best, class| if logits[class] > logits[best] { class } else { best })
}

/// Weights by gradient descent on the mean cross-entropy.
fn fit(rows: &[([f64; 3], usize)], classes: usize) -> Vec<[f64; 3]> {
    let mut weights = vec![[0.0; 3]; classes];
    for _ in 0..STEPS {
        let mut gradient = vec![[0.0; 3]; classes];
        for (features, class) in rows {
            let powers: Vec<f64> = logits(&weights, features).into_iter().map(f64::exp).collect();
            let sum: f64 = powers.iter().sum();
            for (label, row) in gradient.iter_mut().enumerate() {
                let slope = powers[label] / sum - f64::from(u8::from(label == *class));
                row.iter_mut().zip(features).for_each(|(sum, x)| *sum += slope * x);
            }
        }
        for (row, gradient) in weights.iter_mut().zip(gradient) {
            row.iter_mut().zip(gradient).for_each(|(weight, slope)| *weight -= RATE * slope / rows.len() as f64);
        }
    }
    weights
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_tell_all_tell_all_and_equal_ones_nothing() {
        let apart: Vec<(usize, usize)> = (0..300).map(|i| (20 * (1 + i % 3) + i % 4, i % 3)).collect();
        assert!(length_accuracy(&apart, &apart, 3).unwrap() > 0.99);
        let same: Vec<(usize, usize)> = (0..300).map(|i| (40, i % 3)).collect();
        assert!((length_accuracy(&same, &same, 3).unwrap() - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(length_accuracy(&[], &same, 3), None);
    }

    /// Class 0 in the middle, class 1 at both ends: only the square tells them apart.
    #[test]
    fn the_square_counts_too() {
        let rows: Vec<(usize, usize)> = [(10, 1), (31, 0), (33, 0), (100, 1)].into_iter().cycle().take(200).collect();
        assert!(length_accuracy(&rows, &rows, 2).unwrap() > 0.99);
    }
}
