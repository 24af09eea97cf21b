//! Estimates of the KL divergence of a policy from a reference, from responses sampled from the policy.
//!
//! `KL(π ‖ π_ref) = E_y Σ_t KL(π(·|x, y_<t) ‖ π_ref(·|x, y_<t))`: given the sampled prefix, what the next token adds is known
//! exactly from both distributions and need not be sampled. That has the same expectation as the log-ratio of the sampled
//! tokens and a much smaller variance.

use serde::{Deserialize, Serialize};

use crate::EvalError;

/// Lowest log-ratio whose `exp` of the negative is finite, with room for sums.
const LOWEST_LOG_RATIO: f64 = -700.0;

/// `KL(policy ‖ reference)` per response, in nats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KlEstimate {
    /// Policy that the responses were sampled from.
    pub policy: String,
    /// Policy it is compared with.
    pub reference: String,
    /// Number of sampled responses.
    pub samples: usize,
    /// Mean over the responses of the sum of the exact divergences at their tokens: unbiased, never negative. In files of
    /// earlier versions, which have no `sampled_mean`, the mean log-ratio.
    pub mean: f64,
    /// Standard error of `mean`.
    pub stderr: f64,
    /// Mean of `log π(y|x) − log π_ref(y|x)` ("k1"): unbiased; can be negative by chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_mean: Option<f64>,
    /// Standard error of `sampled_mean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_stderr: Option<f64>,
    /// Mean of `r − 1 − log r`, `r = π_ref/π` ("k3"): never negative and unbiased, but at large divergences `r` is rarely seen,
    /// and finite samples then fall short of `mean` by up to 1 nat.
    pub k3_mean: f64,
    /// Standard error of `k3_mean`.
    pub k3_stderr: f64,
    /// Mean number of tokens of a response; `mean / mean_tokens` is the divergence per token.
    pub mean_tokens: f64,
}

/// Estimates the KL divergence from `divergences[i] = Σ_t KL(π(·|x_i, y_i,<t) ‖ π_ref(·|x_i, y_i,<t))` and `log_ratios[i] =
/// log π(y_i|x_i) − log π_ref(y_i|x_i)`, both in nats, `y_i` sampled from the policy at temperature 1 without truncation of the
/// distribution, and `tokens[i]` the length of `y_i`. Several responses to one prompt
/// should be averaged first: the standard error treats the entries as independent.
///
/// Source of k1 and k3: J. Schulman, "Approximating KL divergence" (2020).
///
/// # Errors
/// Fewer than two samples, lists of different length, a divergence or log-ratio that is not finite or below −700.
pub fn estimate_kl(
    policy: &str,
    reference: &str,
    divergences: &[f64],
    log_ratios: &[f64],
    tokens: &[usize],
) -> Result<KlEstimate, EvalError> {
    let (policy, reference) = (policy.to_owned(), reference.to_owned());
    let samples = log_ratios.len();
    if samples < 2 {
        return Err(EvalError::TooFewSamples { policy, reference, found: samples });
    }
    for (what, found) in [("response lengths", tokens.len()), ("divergences", divergences.len())] {
        if found != samples {
            let name = format!("{what} of '{policy}'");
            return Err(EvalError::LengthMismatch { name, found, expected: samples });
        }
    }
    for values in [log_ratios, divergences] {
        let broken = |(_, value): &(usize, &f64)| !(value.is_finite() && **value > LOWEST_LOG_RATIO);
        if let Some((sample, &found)) = values.iter().enumerate().find(broken) {
            return Err(EvalError::LogRatioOutOfRange { policy, reference, sample, found });
        }
    }
    let (mean, stderr) = mean_and_stderr(divergences.iter().copied());
    let (sampled_mean, sampled_stderr) = mean_and_stderr(log_ratios.iter().copied());
    // exp_m1 keeps k3 accurate where the two policies are close.
    let (k3_mean, k3_stderr) = mean_and_stderr(log_ratios.iter().map(|ratio| ratio + (-ratio).exp_m1()));
    let mean_tokens = tokens.iter().map(|&length| length as f64).sum::<f64>() / samples as f64;
    Ok(KlEstimate {
        policy,
        reference,
        samples,
        mean,
        stderr,
        sampled_mean: Some(sampled_mean),
        sampled_stderr: Some(sampled_stderr),
        k3_mean,
        k3_stderr,
        mean_tokens,
    })
}

/// Mean and its standard error (sample deviation over √n) of at least two values.
fn mean_and_stderr(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0) / count).sqrt())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn closed_form_on_a_small_set() {
        let estimate = estimate_kl("a", "b", &[2.5, 1.5], &[1.0, 3.0], &[4, 8]).unwrap();
        assert_eq!((estimate.mean, estimate.stderr, estimate.mean_tokens), (2.0, 0.5, 6.0));
        assert_eq!((estimate.sampled_mean, estimate.sampled_stderr), (Some(2.0), Some(1.0)));
        let expected = 2.0 - 1.0 + ((-1f64).exp() + (-3f64).exp()) / 2.0;
        assert!((estimate.k3_mean - expected).abs() < 1e-15);
    }

    #[test]
    fn expectation_over_a_whole_distribution_is_the_divergence() {
        // Policy (1/2, 1/4, 1/4), reference (1/4, 1/4, 1/2): KL = 1/4 ln 2, and the expectation of r is 1.
        let ratio = 2f64.ln();
        let estimate = estimate_kl("a", "b", &[ratio / 4.0; 4], &[ratio, ratio, 0.0, -ratio], &[1; 4]).unwrap();
        assert!((estimate.sampled_mean.unwrap() - ratio / 4.0).abs() < 1e-15);
        assert!((estimate.k3_mean - ratio / 4.0).abs() < 1e-15);
    }

    #[test]
    fn equal_policies_have_no_divergence() {
        let estimate = estimate_kl("a", "a", &[0.0; 5], &[0.0; 5], &[3; 5]).unwrap();
        assert_eq!((estimate.mean, estimate.stderr, estimate.k3_mean), (0.0, 0.0, 0.0));
    }

    #[test]
    fn bad_samples_are_errors() {
        assert!(matches!(estimate_kl("a", "b", &[1.0], &[1.0], &[1]), Err(EvalError::TooFewSamples { found: 1, .. })));
        assert!(matches!(estimate_kl("a", "b", &[1.0; 2], &[1.0, 2.0], &[1]), Err(EvalError::LengthMismatch { .. })));
        for bad in [f64::NAN, f64::INFINITY, -1e4] {
            let error = estimate_kl("a", "b", &[1.0, 1.0], &[1.0, bad], &[1, 1]).unwrap_err();
            assert!(matches!(error, EvalError::LogRatioOutOfRange { sample: 1, .. }));
            assert!(error.hint().is_some());
        }
    }
}
