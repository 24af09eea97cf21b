//! λ as a multiplier: dual ascent on the bounds of a constrained round.
//!
//! Round `n` maximises `E[R_n] − α·KL(π ‖ π_{n−1})` subject to `g_i(π) ≥ H_i` of every held dimension `i`. Its Lagrangian
//! weighs each `g_i` with `λ_i ≥ 0`, and the dual problem is solved by `λ_i ← max(0, λ_i + η·(H_i − g_i))`. The integral
//! alone swings where the policy follows λ late, so a multiple of the violation itself is added to it (Stooke et al.
//! 2020, arXiv 2007.03964); where every violation is 0 both say the same.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::{CoreError, Objective, PairNumbers, Sides, differentiate};

/// How λ follows violations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ascent {
    /// What a violation of 1 adds to the integral, η.
    pub rate: f64,
    /// What it adds to λ beside the integral.
    pub gain: f64,
    /// λ stays at or below.
    pub most: f64,
}

/// The multipliers of a round, one for each held dimension.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dual {
    /// The integral of the violations, from the start values on.
    integral: Vec<f64>,
    /// λ.
    lambda: Vec<f64>,
}

impl Dual {
    /// Multipliers that start at these values, cut at `most`.
    pub fn new(start: &[f64], most: f64) -> Self {
        let lambda: Vec<f64> = start.iter().map(|value| value.clamp(0.0, most)).collect();
        Self { integral: lambda.clone(), lambda }
    }

    /// λ, one for each held dimension.
    pub fn lambda(&self) -> &[f64] {
        &self.lambda
    }

    /// One step of the ascent: `violations` are `H_i − g_i`, above 0 where the bound is broken.
    pub fn ascend(&mut self, violations: &[f64], ascent: &Ascent) {
        let Ascent { rate, gain, most } = *ascent;
        for ((integral, lambda), violation) in self.integral.iter_mut().zip(&mut self.lambda).zip(violations) {
            *integral = (*integral + rate * violation).clamp(0.0, most);
            *lambda = (*integral + gain * violation).clamp(0.0, most);
        }
    }
}

/// The λ at which the first step of a round changes no held reward, or raises it: the multipliers of `min ‖2 + c + Σ_i λ_i
/// Δr̂_i‖²` over `λ ≥ 0`, where row `i` of `rewards` is `Δr̂_i` on the pairs that the round learns, `[dimensions][pairs]`, and
/// `fixed` the `c` of rounds whose λ is given, `[pairs]`.
///
/// To first order `λ* = max(0, −Cov(R_1, R_n) / Var(R_1))` under the policy that the round starts from. Over the two answers
/// of pairs `Var(R_1) = E[ΔR_1²]/2` and `Cov(R_1, R_n) = E[ΔR_1·ΔR_n]/2`, and near 0 a Bradley–Terry label `±1` has the mean
/// `ΔR_n/2`: so `2` stands for `ΔR_n` of chosen minus rejected. Exact for small steps, else too small.
pub fn start_value(rewards: &[Vec<f64>], fixed: &[f64]) -> Vec<f64> {
    const TARGET: f64 = 2.0;
    /// Coordinate descent on a convex quadratic; there are few dimensions.
    const SWEEPS: usize = 200;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let gram: Vec<Vec<f64>> = rewards.iter().map(|a| rewards.iter().map(|b| dot(a, b)).collect()).collect();
    let target: Vec<f64> = fixed.iter().map(|c| TARGET + c).collect();
    let sums: Vec<f64> = rewards.iter().map(|row| dot(row, &target)).collect();
    let mut lambda = vec![0.0; rewards.len()];
    for _ in 0..SWEEPS {
        for (index, row) in gram.iter().enumerate().filter(|(index, row)| row[*index] > 0.0) {
            let others = dot(row, &lambda) - row[index] * lambda[index];
            lambda[index] = (-(sums[index] + others) / row[index]).max(0.0);
        }
    }
    lambda
}

/// What the log-prob of each policy `π_0 … π_{n−1}` counts in `Σ_i λ_i·r̂_i(x, y)`, `[policies]`, with a λ for each of the
/// `n − 1` earlier rounds. Implicit rewards are linear in log-probs (`r̂_k = α_k log(π_k/π_{k−1}) − Σ_{i<k} λ_{k,i} r̂_i`, see
/// [`spo`](crate::objective::spo)): with these numbers a single answer has one, up to a constant of its prompt, one that a
/// policy wrote itself too. `None` if the objective holds no earlier rounds. The arithmetic runs on `device`.
///
/// # Errors
/// Coefficients that the objective refuses.
pub fn reward_weights(
    objective: &dyn Objective,
    lambda: &[f64],
    device: &Device,
) -> Result<Option<Vec<f64>>, CoreError> {
    let Some(held) = objective.with_lambda(lambda.len(), lambda) else { return Ok(None) };
    let policies = lambda.len() + 1;
    let zeros = || vec![0.0; policies];
    // Pair p shows what policy p counts: it alone tells the answers apart, by one nat.
    let unit = |policy| {
        let mut chosen = zeros();
        chosen[policy] = 1.0;
        Sides { chosen, rejected: zeros() }
    };
    let mut pairs = PairNumbers::new(zeros(), zeros());
    pairs.earlier = (0..policies).map(unit).collect();
    pairs.reference = pairs.earlier.last().cloned();
    Ok(differentiate(held.as_ref(), &pairs, device)?.margin_offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_value_is_the_closed_form_of_one_dimension() {
        let rewards = vec![vec![-1.0, -2.0, 0.5, 1.0]];
        let expected = 2.0 * 1.5 / (1.0 + 4.0 + 0.25 + 1.0);
        assert!((start_value(&rewards, &[0.0; 4])[0] - expected).abs() < 1e-12);
        assert_eq!(start_value(&[vec![1.0, 2.0, -0.5]], &[0.0; 3]), [0.0], "dimensions that agree need no hold");
        assert_eq!(start_value(&[vec![0.0; 3]], &[0.0; 3]), [0.0]);
    }

    #[test]
    fn the_start_value_of_two_dimensions_fulfils_the_conditions_of_the_optimum() {
        let rewards = vec![vec![-1.0, -2.0, 0.5, 1.0, -0.3], vec![0.7, -1.5, -0.5, 0.2, 0.1]];
        let fixed = [0.5, -0.25, 0.0, 1.0, -2.0];
        let lambda = start_value(&rewards, &fixed);
        for (row, own) in rewards.iter().zip(&lambda) {
            let residual =
                |pair: usize| 2.0 + fixed[pair] + rewards.iter().zip(&lambda).map(|(r, l)| l * r[pair]).sum::<f64>();
            let derivative: f64 = row.iter().enumerate().map(|(pair, reward)| reward * residual(pair)).sum();
            assert!(*own >= 0.0 && derivative >= -1e-9 && (own * derivative).abs() < 1e-9, "{lambda:?} {derivative}");
        }
    }

    #[test]
    fn lambda_rises_while_a_bound_is_broken_and_stays_within_its_limits() {
        let ascent = Ascent { rate: 0.5, gain: 2.0, most: 3.0 };
        let mut dual = Dual::new(&[0.25, 9.0], ascent.most);
        assert_eq!(dual.lambda(), [0.25, 3.0]);
        dual.ascend(&[0.5, -0.5], &ascent);
        assert_eq!(dual.lambda(), [0.25 + 0.25 + 1.0, 3.0 - 0.25 - 1.0]);
        dual.ascend(&[0.0, 0.0], &ascent);
        assert_eq!(dual.lambda(), [0.5, 2.75]);
        dual.ascend(&[100.0, -100.0], &ascent);
        assert_eq!(dual.lambda(), [3.0, 0.0]);
    }
}
