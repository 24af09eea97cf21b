//! Changes that are trimmed, and averaged where they agree in their sign.

use super::{Method, Parts};

pub(super) const METHOD: Method = Method {
    name: "ties",
    formula: "θ_0 + Σ_A w_k τ_k / Σ_A w_k for each element: τ_k the largest share `density` of the changes of a tensor, A the models whose \
              τ_k has the sign of Σ w_k τ_k",
    paper: "Yadav et al. 2023, arXiv 2306.01708, trimmed tensor by tensor, with λ = 1",
    base: true,
    simplex: true,
    two: false,
    sparse: true,
    tensor,
};

fn tensor(parts: &Parts) -> Vec<f64> {
    let trimmed: Vec<Vec<f64>> =
        (0..parts.models.len()).map(|model| trim(parts.change(model).collect(), parts.settings.density)).collect();
    let changes: Vec<f64> = (0..parts.base.len())
        .map(|element| {
            let all = || trimmed.iter().map(|changes| changes[element]).zip(parts.weights);
            let elected = all().map(|(change, weight)| weight * change).sum::<f64>().signum();
            let agreeing = || all().filter(|(change, weight)| change * elected > 0.0 && **weight > 0.0);
            let weight: f64 = agreeing().map(|(_, weight)| weight).sum();
            let sum: f64 = agreeing().map(|(change, weight)| weight * change).sum();
            if weight > 0.0 { sum / weight } else { 0.0 }
        })
        .collect();
    parts.on_base(&changes)
}

/// The changes of which the largest share stays; the others are 0.
fn trim(mut changes: Vec<f64>, density: f64) -> Vec<f64> {
    let kept = (density * changes.len() as f64).ceil() as usize;
    if kept >= changes.len() {
        return changes;
    }
    let mut sizes: Vec<f64> = changes.iter().map(|change| change.abs()).collect();
    let (_, least, _) = sizes.select_nth_unstable_by(kept.max(1) - 1, |a, b| b.total_cmp(a));
    let least = *least;
    changes.iter_mut().filter(|change| change.abs() < least).for_each(|change| *change = 0.0);
    changes
}

#[cfg(test)]
mod tests {
    use super::super::tests::merge_on;
    use super::trim;

    #[test]
    fn the_largest_changes_stay() {
        assert_eq!(trim(vec![0.1, -3.0, 2.0, -0.5], 0.5), [0.0, -3.0, 2.0, 0.0]);
        assert_eq!(trim(vec![0.1, -3.0, 2.0], 0.1), [0.0, -3.0, 0.0]);
        assert_eq!(trim(vec![0.1, -3.0], 1.0), [0.1, -3.0]);
    }

    #[test]
    fn signs_are_elected_and_the_others_left_out() {
        // By hand: of each column the trimmed changes, the sign of their weighted sum, the mean of those that have it.
        let base = [1.0f32, 1.0, 1.0, 1.0];
        let a = [3.0f32, 1.5, -1.0, 1.25];
        let b = [2.0f32, -2.0, 2.0, 1.0];
        // Changes 2, ½, −2, ¼ and 1, −3, 1, 0; the larger half: 2, 0, −2, 0 and 1, −3, 1, 0 (1 and 1 tie).
        let found = merge_on("ties", &base, &[&a, &b], &[0.5, 0.5], 0.5);
        assert_eq!(found, [1.0 + 1.5, 1.0 - 3.0, 1.0 - 2.0, 1.0]);
        // With three quarters of the weight, the second model's sign wins in the third column.
        let found = merge_on("ties", &base, &[&a, &b], &[0.25, 0.75], 0.5);
        assert_eq!(found, [1.0 + (0.25 * 2.0 + 0.75), 1.0 - 3.0, 1.0 + 1.0, 1.0]);
    }
}
