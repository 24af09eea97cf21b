//! The weighted mean.

use super::{Method, Parts, weighed};

pub(super) const METHOD: Method = Method {
    name: "linear",
    formula: "Σ w_k θ_k, Σ w_k = 1",
    paper: "Wortsman et al. 2022, arXiv 2203.05482 (model soups); Ramé et al. 2023, arXiv 2306.04488 (rewarded soups: one policy for \
            each reward, mixed afterwards)",
    base: false,
    simplex: true,
    two: false,
    sparse: false,
    tensor,
};

fn tensor(parts: &Parts) -> Vec<f64> {
    let models = parts.models.iter().copied().zip(parts.weights.iter().copied());
    weighed(models, parts.models[0].len())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{A, B, merged};

    #[test]
    fn it_is_the_mean() {
        let found = merged("linear", &[&A, &B], &[0.25, 0.75], 1.0);
        for (index, value) in found.iter().enumerate() {
            assert!((value - (0.25 * f64::from(A[index]) + 0.75 * f64::from(B[index]))).abs() < 1e-15);
        }
    }
}
