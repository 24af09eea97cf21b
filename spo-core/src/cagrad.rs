//! CAGrad with clipped weights: one direction for several losses (Liu et al. 2021, arXiv 2110.14048; clipped by the user's
//! weights in RACO, arXiv 2602.02495).
//!
//! With gradients `g_k`, weights `w`, `g_0 = Σ w_k g_k` and the Gram matrix `M_ij = ⟨g_i, g_j⟩`, the direction `d` with
//! `‖d − g_0‖ ≤ c‖g_0‖` whose least `⟨g_k, d⟩` is largest is `g_0 + c‖g_0‖ g_p/‖g_p‖`, where `g_p = Σ p_k g_k` and `p` minimises
//! `pᵀMw + c √(wᵀMw) √(pᵀMp)` over the simplex. Clipped, `p̃ = min(p, w)` stands for `p` in `g_p`. Only inner products are needed.

/// What each gradient counts in the combined one: `w_k + c √(wᵀMw) p̃_k / √(p̃ᵀMp̃)`; `w_k` where the last norm is 0.
///
/// # Shapes
/// - `gram`: `[dimensions][dimensions]`, symmetric
/// - `weights`: `[dimensions]`, on the simplex
pub fn coefficients(gram: &[Vec<f64>], weights: &[f64], c: f64) -> Vec<f64> {
    let clipped: Vec<f64> = least(gram, weights, c).iter().zip(weights).map(|(p, w)| p.min(*w)).collect();
    let square = product(gram, &clipped, &clipped);
    // Gradients that cancel leave the rounding of f32 sums.
    let scale = clipped.iter().enumerate().map(|(k, p)| p * p * gram[k][k]).sum::<f64>();
    if square <= 1e-12 * scale {
        return weights.to_vec();
    }
    let factor = c * (product(gram, weights, weights).max(0.0) / square).sqrt();
    weights.iter().zip(&clipped).map(|(w, p)| w + factor * p).collect()
}

/// The `p` on the simplex that minimises `pᵀMw + c √(wᵀMw) √(pᵀMp)`: pair by pair, each time the exact minimum along `e_i − e_j`,
/// until nothing moves. The function is convex, and two dimensions take one such step.
///
/// # Shapes
/// As [`coefficients`].
pub fn least(gram: &[Vec<f64>], weights: &[f64], c: f64) -> Vec<f64> {
    const SWEEPS: usize = 10_000;
    let linear = times(gram, weights);
    let scale = c * product(gram, weights, weights).max(0.0).sqrt();
    let mut p = weights.to_vec();
    for _ in 0..SWEEPS {
        let mut moved = 0.0_f64;
        for i in 0..p.len() {
            for j in i + 1..p.len() {
                let step = along(gram, &p, (i, j), linear[i] - linear[j], scale);
                (p[i], p[j]) = ((p[i] + step).max(0.0), (p[j] - step).max(0.0));
                moved = moved.max(step.abs());
            }
        }
        if moved < 1e-14 {
            break;
        }
    }
    p
}

/// The `t` that minimises `slope·t + scale·√(qᵀMq)` at `q = p + t (e_i − e_j)` on the simplex.
fn along(gram: &[Vec<f64>], p: &[f64], (i, j): (usize, usize), slope: f64, scale: f64) -> f64 {
    let (low, high) = (-p[i], p[j]);
    let of = times(gram, p);
    // qᵀMq = γ u² + δ with u = t + β/γ.
    let (beta, gamma) = (of[i] - of[j], gram[i][i] + gram[j][j] - 2.0 * gram[i][j]);
    let towards = |slope: f64| match slope.total_cmp(&0.0) {
        std::cmp::Ordering::Less => high,
        std::cmp::Ordering::Equal => 0.0,
        std::cmp::Ordering::Greater => low,
    };
    if gamma <= f64::EPSILON * (gram[i][i] + gram[j][j]) {
        return towards(slope);
    }
    let room = scale * scale * gamma - slope * slope;
    if room <= 0.0 {
        return towards(slope);
    }
    let delta = (product(gram, p, p) - beta * beta / gamma).max(0.0);
    (-slope * (delta / (gamma * room)).sqrt() - beta / gamma).clamp(low, high)
}

fn times(gram: &[Vec<f64>], x: &[f64]) -> Vec<f64> {
    gram.iter().map(|row| row.iter().zip(x).map(|(m, x)| m * x).sum()).collect()
}

fn product(gram: &[Vec<f64>], x: &[f64], y: &[f64]) -> f64 {
    times(gram, y).iter().zip(x).map(|(m, x)| m * x).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gradients in the plane or in space, from a fixed sequence of numbers in −1 to 1.
    fn gradients(seed: usize, count: usize, width: usize) -> Vec<Vec<f64>> {
        let number = |index: usize| {
            let x = ((seed * 97 + index * 31 + 1) as f64 * 12.9898).sin() * 43758.5453;
            2.0 * (x - x.floor()) - 1.0
        };
        (0..count).map(|k| (0..width).map(|i| number(k * width + i)).collect()).collect()
    }

    fn gram(of: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
        of.iter().map(|a| of.iter().map(|b| dot(a, b)).collect()).collect()
    }

    fn value(gram: &[Vec<f64>], w: &[f64], c: f64, p: &[f64]) -> f64 {
        product(gram, p, w) + c * product(gram, w, w).sqrt() * product(gram, p, p).max(0.0).sqrt()
    }

    fn mixed(of: &[Vec<f64>], by: &[f64]) -> Vec<f64> {
        (0..of[0].len()).map(|i| of.iter().zip(by).map(|(g, b)| b * g[i]).sum()).collect()
    }

    #[test]
    fn the_minimum_is_that_of_a_search_over_the_simplex() {
        const GRID: usize = 400;
        for seed in 0..40 {
            for (c, w) in [(0.4, [0.5, 0.3, 0.2]), (0.9, [0.1, 0.1, 0.8]), (2.0, [1.0, 0.0, 0.0])] {
                let gram = gram(&gradients(seed, 3, 4));
                let found = least(&gram, &w, c);
                assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12 && found.iter().all(|p| *p >= 0.0));
                let mut best = f64::INFINITY;
                for a in 0..=GRID {
                    for b in 0..=GRID - a {
                        let at = [a, b, GRID - a - b].map(|x| x as f64 / GRID as f64);
                        best = best.min(value(&gram, &w, c, &at));
                    }
                }
                let own = value(&gram, &w, c, &found);
                assert!(own <= best + 1e-12 && own > best - 1e-2, "{seed} {c}: {own} against {best}");
            }
        }
    }

    #[test]
    fn two_dimensions_have_a_closed_form() {
        for seed in 0..60 {
            let (gram, c) = (gram(&gradients(seed, 2, 3)), 0.5);
            let w = [0.3, 0.7];
            let found = least(&gram, &w, c)[0];
            // By sections of the interval, of a convex function.
            let (mut low, mut high) = (0.0, 1.0);
            for _ in 0..200 {
                let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
                let of = |p: f64| value(&gram, &w, c, &[p, 1.0 - p]);
                if of(a) < of(b) { high = b } else { low = a }
            }
            assert!((found - (low + high) / 2.0).abs() < 1e-6, "{seed}: {found} {low}");
            // At a corner, clipping changes the length of g_p alone.
            if found == 0.0 || found == 1.0 {
                let at = if found == 1.0 { 0 } else { 1 };
                let norm = (product(&gram, &w, &w) / gram[at][at]).sqrt();
                let mut expected = w;
                expected[at] += c * norm;
                let coefficients = coefficients(&gram, &w, c);
                assert!(coefficients.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{coefficients:?}");
            }
        }
    }

    #[test]
    fn without_clipping_no_direction_in_the_ball_helps_the_worst_dimension_more() {
        let worst = |of: &[Vec<f64>], d: &[f64]| {
            let dot = |g: &Vec<f64>| g.iter().zip(d).map(|(a, b)| a * b).sum::<f64>();
            of.iter().map(dot).fold(f64::INFINITY, f64::min)
        };
        for seed in 0..20 {
            let (of, w, c) = (gradients(seed, 3, 3), [0.2, 0.5, 0.3], 0.6);
            let gram = gram(&of);
            let p = least(&gram, &w, c);
            let (mean, towards) = (mixed(&of, &w), mixed(&of, &p));
            let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let radius = c * norm(&mean);
            let at = |way: &[f64]| -> Vec<f64> {
                mean.iter().zip(way).map(|(m, x)| m + radius * x / norm(way).max(1e-300)).collect()
            };
            let own = worst(&of, &at(&towards));
            for other in 0..500 {
                let way = gradients(1000 + seed * 500 + other, 1, 3).remove(0);
                assert!(worst(&of, &at(&way)) <= own + 1e-9, "{seed}: {way:?}");
            }
        }
    }

    #[test]
    fn nothing_to_average_leaves_the_weighted_sum() {
        let w = [0.25, 0.75];
        let conflict = gram(&gradients(3, 2, 3));
        assert_eq!(coefficients(&conflict, &w, 0.0), w);
        assert_eq!(coefficients(&[vec![0.0, 0.0], vec![0.0, 0.0]], &w, 0.4), w);
        // Exactly opposed ones of one length: no direction helps both.
        let opposed = [vec![1.0, -1.0], vec![-1.0, 1.0]];
        let found = coefficients(&opposed, &[0.5, 0.5], 0.4);
        assert!(found.iter().all(|of| (of - 0.5).abs() < 1e-12), "{found:?}");
        // A dimension of weight 0 takes no part.
        assert_eq!(coefficients(&conflict, &[0.0, 1.0], 0.4)[0], 0.0);
    }
}
