//! Changes of which a random share is dropped and the others are scaled up.

use super::{Method, Parts};
use crate::lora::mix;

pub(super) const METHOD: Method = Method {
    name: "dare",
    formula: "θ_0 + Σ w_k m_k (θ_k − θ_0)/density, m_k = 1 with the probability `density` for each element, else 0",
    paper: "Yu et al. 2024, arXiv 2311.03099",
    base: true,
    simplex: false,
    two: false,
    sparse: true,
    tensor,
};

fn tensor(parts: &Parts) -> Vec<f64> {
    let (density, mut changes) = (parts.settings.density, vec![0.0; parts.base.len()]);
    let digest = blake3::hash(parts.name.as_bytes());
    let salt = u64::from_le_bytes(*digest.as_bytes().first_chunk().expect("a hash has 32 bytes"));
    for (model, weight) in parts.weights.iter().enumerate() {
        let key = mix(parts.settings.seed ^ mix(model as u64)) ^ salt;
        for (element, (sum, change)) in changes.iter_mut().zip(parts.change(model)).enumerate() {
            if uniform(key.wrapping_add(mix(element as u64))) < density {
                *sum += weight * change / density;
            }
        }
    }
    parts.on_base(&changes)
}

/// A number of [0, 1) that follows from a key.
fn uniform(key: u64) -> f64 {
    (mix(key) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::{A, B, BASE, merge_seeded, merged};

    #[test]
    fn the_mean_over_seeds_is_task_arithmetic() {
        let weights = [0.7, -0.4];
        let expected = merged("task-arithmetic", &[&A, &B], &weights, 1.0);
        let all = merged("dare", &[&A, &B], &weights, 1.0);
        assert!(all.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-14), "nothing is dropped: {all:?}");
        const SEEDS: usize = 20_000;
        let mut mean = vec![0.0; A.len()];
        for seed in 0..SEEDS as u64 {
            let found = merge_seeded("dare", &BASE, &[&A, &B], &weights, 0.3, seed);
            mean.iter_mut().zip(found).for_each(|(mean, value)| *mean += value / SEEDS as f64);
        }
        for (mean, expected) in mean.iter().zip(&expected) {
            assert!((mean - expected).abs() < 0.05, "{mean} {expected}");
        }
    }

    #[test]
    fn the_share_that_stays_is_the_density() {
        let (base, model) = ([0.0f32; 4096], [1.0f32; 4096]);
        let found = merge_seeded("dare", &base, &[&model], &[1.0], 0.25, 7);
        let kept = found.iter().filter(|value| **value == 4.0).count();
        assert_eq!(kept + found.iter().filter(|value| **value == 0.0).count(), 4096);
        assert!((kept as f64 / 4096.0 - 0.25).abs() < 0.03, "{kept}");
    }
}
