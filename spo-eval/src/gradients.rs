//! How the gradients of several dimensions stand to each other.

use serde::{Deserialize, Serialize};

/// Inner products of the dimensions' gradients at one policy, each of the mean loss on some pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GradientGram {
    /// The phase.
    pub phase: String,
    /// Optimiser steps done.
    pub step: u64,
    /// The dimensions, the round's own first.
    pub dimensions: Vec<String>,
    /// `⟨g_i, g_j⟩`, `[dimensions][dimensions]`.
    pub gram: Vec<Vec<f64>>,
    /// What each gradient counts in the step, where they become one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coefficients: Vec<f64>,
}

impl GradientGram {
    /// The cosine of two gradients; `None` where one is zero.
    #[must_use]
    pub fn cosine(&self, first: usize, second: usize) -> Option<f64> {
        let norms = (self.gram[first][first] * self.gram[second][second]).sqrt();
        (norms > 0.0).then(|| (self.gram[first][second] / norms).clamp(-1.0, 1.0))
    }

    /// Every two dimensions by their places, once.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let count = self.dimensions.len();
        (0..count).flat_map(move |first| (first + 1..count).map(move |second| (first, second)))
    }
}

#[cfg(test)]
mod tests {
    use super::GradientGram;

    #[test]
    fn cosines_are_those_of_the_vectors() {
        let gram = vec![vec![4.0, -2.0, 0.0], vec![-2.0, 4.0, 0.0], vec![0.0, 0.0, 0.0]];
        let dimensions = ["a", "b", "c"].map(String::from).to_vec();
        let of = GradientGram { phase: "p".into(), step: 0, dimensions, gram, coefficients: vec![] };
        assert_eq!(of.pairs().collect::<Vec<_>>(), [(0, 1), (0, 2), (1, 2)]);
        assert_eq!((of.cosine(0, 1), of.cosine(0, 0), of.cosine(0, 2)), (Some(-0.5), Some(1.0), None));
    }
}
