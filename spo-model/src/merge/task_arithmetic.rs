//! Sums of what models changed.

use super::{Method, Parts, weighed};

pub(super) const METHOD: Method = Method {
    name: "task-arithmetic",
    formula: "θ_0 + Σ w_k (θ_k − θ_0)",
    paper: "Ilharco et al. 2023, arXiv 2212.04089",
    base: true,
    simplex: false,
    two: false,
    sparse: false,
    tensor,
};

/// As `(1 − Σ w_k) θ_0 + Σ w_k θ_k`, which is a model itself at weight 1, without rounding.
fn tensor(parts: &Parts) -> Vec<f64> {
    let rest = 1.0 - parts.weights.iter().sum::<f64>();
    let models = parts.models.iter().copied().zip(parts.weights.iter().copied());
    weighed(models.chain([(parts.base, rest)]), parts.base.len())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{A, B, BASE, merged};

    #[test]
    fn changes_add_up() {
        let found = merged("task-arithmetic", &[&A, &B], &[0.8, -1.5], 1.0);
        for (index, value) in found.iter().enumerate() {
            let [a, b, base] = [A, B, BASE].map(|of| f64::from(of[index]));
            assert!((value - (base + 0.8 * (a - base) - 1.5 * (b - base))).abs() < 1e-14);
        }
    }
}
