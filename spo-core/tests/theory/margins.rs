//! The n-th margin against equation (2), written a second time.

use burn::tensor::Device;
use spo_core::{PairNumbers, differentiate};

use crate::identities::random_pairs;
use crate::world::spo;

/// `Δr̂_k` of one pair: `α_k·Δlog(π_k/π_{k−1}) − Σ_{i<k} λ_{k,i}·Δr̂_i`, by recursion on k (1-based).
fn reward(k: usize, policies: &[f64], alpha: &[f64], lambda: &[Vec<f64>], recursive: bool) -> f64 {
    let own = alpha[k - 1] * (policies[k] - policies[k - 1]);
    if !recursive {
        return own;
    }
    own - (1..k).map(|i| lambda[k - 1][i - 1] * reward(i, policies, alpha, lambda, true)).sum::<f64>()
}

fn deltas(pairs: &PairNumbers, row: usize) -> Vec<f64> {
    pairs.earlier.iter().map(|sides| sides.chosen[row] - sides.rejected[row]).collect()
}

#[test]
fn the_carry_is_equation_2() {
    let alpha = [0.1, 0.25, 0.07, 0.4, 0.15];
    let lambda: Vec<Vec<f64>> = vec![vec![], vec![0.8], vec![0.3, 1.4], vec![0.9, 0.0, 0.6], vec![0.2, 0.5, 1.1, 0.7]];
    for round in 2..=5 {
        for recursive in [true, false] {
            let earlier: Vec<_> = (0..round - 1).map(|k| (alpha[k], lambda[k].clone())).collect();
            let kind = if recursive { "recursive" } else { "raw" };
            let objective = spo(alpha[round - 1], &lambda[round - 1], &earlier, kind);
            let pairs = random_pairs(11 * round as u64, 60, round);
            let result = differentiate(objective.as_ref(), &pairs, &Device::flex()).unwrap();
            let reference = pairs.reference.as_ref().unwrap();
            for (row, margin_offset) in result.margin_offset.unwrap().into_iter().enumerate() {
                let policies = deltas(&pairs, row);
                let expected: f64 = (1..round)
                    .map(|i| lambda[round - 1][i - 1] * reward(i, &policies, &alpha, &lambda, recursive))
                    .sum();
                assert!(
                    (margin_offset - expected).abs() < 1e-11 * expected.abs().max(1.0),
                    "{margin_offset} {expected}"
                );
                let delta = (pairs.policy_chosen[row] - reference.chosen[row])
                    - (pairs.policy_rejected[row] - reference.rejected[row]);
                let logit = alpha[round - 1] * delta - expected;
                let loss = (-logit).max(0.0) + (-logit.abs()).exp().ln_1p();
                assert!((result.losses[row] - loss).abs() < 1e-10 * loss.max(1.0));
            }
        }
    }
}

#[test]
fn raw_and_recursive_differ_by_lambda_31() {
    // raw with λ'_31 = λ_31 − λ_32·λ_21 holds what the recursion holds.
    let (l21, l31, l32) = (0.4, 0.9, 0.7);
    let earlier = [(0.1, vec![]), (0.2, vec![l21])];
    let pairs = random_pairs(77, 50, 3);
    let margin_offset = |lambda: &[f64], margin: &str| {
        let objective = spo(0.3, lambda, &earlier, margin);
        differentiate(objective.as_ref(), &pairs, &Device::flex()).unwrap().margin_offset.unwrap()
    };
    let recursive = margin_offset(&[l31, l32], "recursive");
    let raw = margin_offset(&[l31 - l32 * l21, l32], "raw");
    for (a, b) in recursive.iter().zip(raw) {
        assert!((a - b).abs() < 1e-11);
    }
}
