//! Choosing the next token.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the next token is chosen from the logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Keep only this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most likely tokens whose probabilities sum to this; 1 keeps all.
    pub top_p: f64,
}

impl Sampling {
    /// Always the most likely token.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0 };
}

/// The draws of one sequence.
#[derive(Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
}

impl Sampler {
    pub fn new(sampling: Sampling, seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self { sampling, rng }
    }

    /// A token for logits `[vocab]`.
    pub fn choose(&mut self, logits: &[f32]) -> u32 {
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(index, _)| index);
        if self.sampling.temperature <= 0.0 {
            return best as u32;
        }
        let top = f64::from(logits[best]);
        let weight = |logit: f32| ((f64::from(logit) - top) / self.sampling.temperature).exp();
        let mut weights: Vec<(usize, f64)> = logits.iter().map(|&logit| weight(logit)).enumerate().collect();
        self.truncate(&mut weights);
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut remaining = self.rng.random::<f64>() * total;
        for (index, weight) in &weights {
            remaining -= weight;
            if remaining < 0.0 {
                return *index as u32;
            }
        }
        best as u32
    }

    fn truncate(&self, weights: &mut Vec<(usize, f64)>) {
        let Sampling { top_k, top_p, .. } = self.sampling;
        if top_k == 0 && top_p >= 1.0 {
            return;
        }
        weights.sort_by(|a, b| b.1.total_cmp(&a.1));
        if top_k > 0 {
            weights.truncate(top_k);
        }
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut sum = 0.0;
        let kept = weights.iter().take_while(|(_, weight)| {
            let before = sum;
            sum += weight;
            before < top_p * total
        });
        let kept = kept.count().max(1);
        weights.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.2].iter().map(|p| p.ln()).collect();
        let mut sampler = Sampler::new(Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 }, 3, 0);
        let mut counts = [0.0f64; 3];
        (0..20_000).for_each(|_| counts[sampler.choose(&logits) as usize] += 1.0 / 20_000.0);
        for (count, expected) in counts.iter().zip([0.5, 0.3, 0.2]) {
            assert!((count - expected).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn truncation_keeps_the_most_likely() {
        let logits = [0.0f32, 3.0, 2.0, -1.0];
        let draw = |top_k, top_p| {
            let mut sampler = Sampler::new(Sampling { temperature: 1.0, top_k, top_p }, 1, 0);
            (0..500).map(|_| sampler.choose(&logits)).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(draw(2, 1.0), [1, 2].into());
        assert_eq!(draw(0, 0.5), [1].into());
        assert_eq!(draw(1, 1.0), [1].into());
        assert_eq!(Sampler::new(Sampling::GREEDY, 0, 0).choose(&logits), 1);
    }
}
