//! Along the arc between two models.

use super::{Method, Parts, weighed};

pub(super) const METHOD: Method = Method {
    name: "slerp",
    formula: "(sin(w_1 Ω)·θ_1 + sin(w_2 Ω)·θ_2)/sin Ω, cos Ω = ⟨θ_1, θ_2⟩/(‖θ_1‖‖θ_2‖), for each tensor; the mean where Ω is hardly any",
    paper: "Shoemake 1985, Animating rotation with quaternion curves; in use for models as in mergekit (arXiv 2403.13257)",
    base: false,
    simplex: true,
    two: true,
    sparse: false,
    tensor,
};

/// Cosines from here on count as parallel: sin Ω would be rounding.
const PARALLEL: f64 = 1.0 - 1e-8;

fn tensor(parts: &Parts) -> Vec<f64> {
    let [first, second] = [parts.models[0], parts.models[1]];
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cosine = dot(first, second) / (dot(first, first) * dot(second, second)).sqrt();
    let weights = [parts.weights[0], parts.weights[1]];
    // Of a tensor of zeros there is no angle.
    let factors = match cosine.abs() < PARALLEL {
        true => {
            let angle = cosine.acos();
            weights.map(|weight| (weight * angle).sin() / angle.sin())
        }
        false => weights,
    };
    weighed([first, second].into_iter().zip(factors), first.len())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{A, B, merged};

    #[test]
    fn it_keeps_to_the_arc() {
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let unit = |x: &[f32]| {
            let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            let length = norm(&wide);
            wide.iter().map(|x| (x / length) as f32).collect::<Vec<f32>>()
        };
        let (a, b) = (unit(&A), unit(&B));
        let angle = |x: &[f64], y: &[f32]| {
            let dot = x.iter().zip(y).map(|(x, y)| x * f64::from(*y)).sum::<f64>();
            (dot / norm(x)).clamp(-1.0, 1.0).acos()
        };
        let whole = angle(&merged("slerp", &[&a, &b], &[1.0, 0.0], 1.0), &b);
        for share in [0.0, 0.2, 0.5, 0.9, 1.0] {
            let found = merged("slerp", &[&a, &b], &[1.0 - share, share], 1.0);
            assert!((norm(&found) - 1.0).abs() < 1e-6, "{share}: of unit length");
            assert!((angle(&found, &b) - (1.0 - share) * whole).abs() < 1e-3, "{share}: at its share of the arc");
        }
        // Parallel ones, and zeros: the mean.
        let twice = A.map(|value| 2.0 * value);
        let found = merged("slerp", &[&A, &twice], &[0.5, 0.5], 1.0);
        assert!(found.iter().zip(A).all(|(found, a)| (found - 1.5 * f64::from(a)).abs() < 1e-12), "{found:?}");
        assert_eq!(merged("slerp", &[&[0.0; 2], &[0.0; 2]], &[0.5, 0.5], 1.0), [0.0, 0.0]);
    }
}
