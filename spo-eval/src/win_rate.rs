//! Who wins where two policies answer the same prompts and somebody scores the answers.
//!
//! The length-controlled rate is that of Dubois et al. 2024 (arXiv 2404.04475) without its terms for prompts: a logistic
//! regression of the outcome on a constant and on the difference in length, `σ(θ + γ tanh(Δ/sd Δ))`; the rate is `σ(θ)`, what
//! it would be at equal length.

use serde::{Deserialize, Serialize};

use crate::EvalError;
use crate::bootstrap::{Bootstrap, clusters};

/// The answers of two policies to one prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Duel {
    /// Number of the prompt: answers to one prompt are resampled together.
    pub prompt: usize,
    /// Score of the first policy's answer.
    pub a: f64,
    /// Score of the second policy's answer.
    pub b: f64,
    /// Length of the first one's answer, in tokens.
    pub a_tokens: usize,
    /// Length of the second one's answer, in tokens.
    pub b_tokens: usize,
}

impl Duel {
    /// 1 where the first policy wins, 0 where it loses, ½ at a tie.
    fn outcome(&self) -> f64 {
        match self.a.total_cmp(&self.b) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Less => 0.0,
            std::cmp::Ordering::Equal => 0.5,
        }
    }
}

/// How often one policy beats another. Rates are from 0 to 1, a tie counts as half a win; intervals are of 95 %, by prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WinRate {
    /// The first policy.
    pub a: String,
    /// The second policy.
    pub b: String,
    /// What is scored: a dimension, or `score`.
    pub dimension: String,
    /// Pairs of answers that have scores.
    pub duels: usize,
    /// Where the first one's answer has the higher score.
    pub wins: usize,
    /// Where both scores are equal.
    pub ties: usize,
    /// Where it has the lower score.
    pub losses: usize,
    /// `(wins + ties/2) / duels`.
    pub rate: f64,
    /// Its interval.
    pub rate_interval: (f64, f64),
    /// The rate at equal length; absent where lengths and outcomes do not say (all lengths equal).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_controlled: Option<f64>,
    /// Mean score of the first policy.
    pub a_score: f64,
    /// Mean score of the second policy.
    pub b_score: f64,
    /// Interval of the difference of the means, first less second.
    pub difference_interval: (f64, f64),
    /// Mean length of the first policy's answers, in tokens.
    pub a_tokens: f64,
    /// Mean length of the second policy's answers, in tokens.
    pub b_tokens: f64,
}

/// Counts duels and puts intervals around the counts.
///
/// # Errors
/// No duels, a score that is not finite, too few resamples.
pub fn win_rate(
    (a, b): (&str, &str),
    dimension: &str,
    duels: &[Duel],
    bootstrap: &Bootstrap,
) -> Result<WinRate, EvalError> {
    if duels.is_empty() {
        return Err(EvalError::NoValues { name: format!("{a} against {b}") });
    }
    for duel in duels {
        if let Some((policy, found)) = [(a, duel.a), (b, duel.b)].into_iter().find(|(_, score)| !score.is_finite()) {
            let (policy, dimension, example) = (policy.to_owned(), dimension.to_owned(), duel.prompt);
            return Err(EvalError::NonFiniteMargin { policy, dimension, example, found });
        }
    }
    let count = |outcome: f64| duels.iter().filter(|duel| duel.outcome() == outcome).count();
    let mean = |of: fn(&Duel) -> f64| duels.iter().map(of).sum::<f64>() / duels.len() as f64;
    let clusters = clusters(duels.iter().map(|duel| (duel.prompt, [duel.outcome(), duel.a - duel.b])));
    let [rate_interval, difference_interval] = bootstrap.intervals(&clusters)?;
    Ok(WinRate {
        a: a.to_owned(),
        b: b.to_owned(),
        dimension: dimension.to_owned(),
        duels: duels.len(),
        wins: count(1.0),
        ties: count(0.5),
        losses: count(0.0),
        rate: mean(Duel::outcome),
        rate_interval,
        length_controlled: length_controlled(duels),
        a_score: mean(|duel| duel.a),
        b_score: mean(|duel| duel.b),
        difference_interval,
        a_tokens: mean(|duel| duel.a_tokens as f64),
        b_tokens: mean(|duel| duel.b_tokens as f64),
    })
}

/// `σ(θ)` of the regression, by Newton's method with a weak normal prior (precision 1/100), without which outcomes that the
/// lengths separate have no finite maximum.
fn length_controlled(duels: &[Duel]) -> Option<f64> {
    const PRECISION: f64 = 1e-2;
    let differences: Vec<f64> = duels.iter().map(|duel| duel.a_tokens as f64 - duel.b_tokens as f64).collect();
    let count = duels.len() as f64;
    let mean = differences.iter().sum::<f64>() / count;
    let deviation = (differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / count).sqrt();
    if deviation == 0.0 {
        return None;
    }
    let (mut theta, mut gamma) = (0.0_f64, 0.0_f64);
    for _ in 0..100 {
        let (mut g, mut h) = ([-PRECISION * theta, -PRECISION * gamma], [PRECISION, 0.0, PRECISION]);
        for (duel, difference) in duels.iter().zip(&differences) {
            let x = (difference / deviation).tanh();
            let p = 1.0 / (1.0 + (-theta - gamma * x).exp());
            let (error, weight) = (duel.outcome() - p, p * (1.0 - p));
            g = [g[0] + error, g[1] + error * x];
            h = [h[0] + weight, h[1] + weight * x, h[2] + weight * x * x];
        }
        let determinant = h[0] * h[2] - h[1] * h[1];
        let step = [(h[2] * g[0] - h[1] * g[1]) / determinant, (h[0] * g[1] - h[1] * g[0]) / determinant];
        // A long step from a flat place may overshoot.
        let scale = 1.0 / (1.0_f64).max(step[0].abs().max(step[1].abs()));
        (theta, gamma) = (theta + scale * step[0], gamma + scale * step[1]);
        if step[0].abs().max(step[1].abs()) < 1e-12 {
            break;
        }
    }
    Some(1.0 / (1.0 + (-theta).exp()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn duel(prompt: usize, difference: f64, tokens: (usize, usize)) -> Duel {
        Duel { prompt, a: difference, b: 0.0, a_tokens: tokens.0, b_tokens: tokens.1 }
    }

    #[test]
    fn wins_are_counted_and_mirrored() {
        let duels = [duel(0, 1.0, (5, 3)), duel(1, 0.0, (2, 2)), duel(2, -2.0, (1, 9)), duel(3, 0.5, (4, 4))];
        let rate = win_rate(("a", "b"), "score", &duels, &Bootstrap::default()).unwrap();
        assert_eq!((rate.wins, rate.ties, rate.losses, rate.rate), (2, 1, 1, 0.625));
        assert_eq!((rate.a_score, rate.a_tokens, rate.b_tokens), (-0.125, 3.0, 4.5));
        let turned: Vec<Duel> =
            duels.iter().map(|d| Duel { a: d.b, b: d.a, a_tokens: d.b_tokens, b_tokens: d.a_tokens, ..*d }).collect();
        let mirror = win_rate(("b", "a"), "score", &turned, &Bootstrap::default()).unwrap();
        assert_eq!(mirror.rate, 1.0 - rate.rate);
        assert!((mirror.length_controlled.unwrap() + rate.length_controlled.unwrap() - 1.0).abs() < 1e-9);
        assert!(rate.rate_interval.0 < rate.rate && rate.rate < rate.rate_interval.1);
    }

    #[test]
    fn a_policy_that_wins_by_length_alone_is_at_a_half() {
        // The longer answer wins nine times out of ten; the first policy's is longer three times out of four.
        let duels: Vec<Duel> = (0..400)
            .map(|n| {
                let (longer, usual) = (n % 4 != 0, n / 4 % 10 < 9);
                let tokens = if longer { (20, 10) } else { (10, 20) };
                duel(n, if longer == usual { 1.0 } else { -1.0 }, tokens)
            })
            .collect();
        let rate = win_rate(("a", "b"), "score", &duels, &Bootstrap::default()).unwrap();
        assert!((rate.rate - 0.7).abs() < 1e-9, "{rate:?}");
        assert!((rate.length_controlled.unwrap() - 0.5).abs() < 1e-3, "{rate:?}");
        // Length that says nothing of the outcome changes nothing.
        let duels: Vec<Duel> =
            (0..400).map(|n| duel(n, if n % 4 == 0 { -1.0 } else { 1.0 }, (10 + (n / 4) % 2, 10))).collect();
        let rate = win_rate(("a", "b"), "score", &duels, &Bootstrap::default()).unwrap();
        assert!((rate.length_controlled.unwrap() - 0.75).abs() < 1e-3, "{rate:?}");
    }

    #[test]
    fn the_regression_is_the_closed_form_where_there_is_one() {
        // Two lengths: the fit goes through both rates, logit 9/10 and logit 3/10, and σ(θ) lies between them by x.
        let duels: Vec<Duel> = (0..2000)
            .map(|n| {
                let long = n % 2 == 0;
                let wins = if long { n / 2 % 10 < 9 } else { n / 2 % 10 < 3 };
                duel(n, if wins { 1.0 } else { -1.0 }, if long { (30, 10) } else { (10, 30) })
            })
            .collect();
        let logit = |p: f64| (p / (1.0 - p)).ln();
        let expected = 1.0 / (1.0 + (-(logit(0.9) + logit(0.3)) / 2.0).exp());
        let rate = win_rate(("a", "b"), "score", &duels, &Bootstrap::default()).unwrap();
        assert!((rate.length_controlled.unwrap() - expected).abs() < 1e-3, "{rate:?} {expected}");
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        let none = win_rate(("a", "b"), "score", &[], &Bootstrap::default());
        assert!(matches!(none, Err(EvalError::NoValues { .. })));
        let nan = win_rate(("a", "b"), "score", &[duel(0, f64::NAN, (1, 1))], &Bootstrap::default());
        assert!(matches!(nan, Err(EvalError::NonFiniteMargin { .. })));
        let equal = win_rate(("a", "b"), "score", &[duel(0, 1.0, (1, 1))], &Bootstrap::default()).unwrap();
        assert_eq!(equal.length_controlled, None);
    }
}
