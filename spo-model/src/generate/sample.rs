//! Choosing the next token.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the next token is chosen from the logits: the penalty, then the temperature, then what is
/// kept, in this order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Keep only this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most likely tokens whose probabilities sum to this; 1 keeps all.
    pub top_p: f64,
    /// Keep the tokens at least this many times as likely as the most likely one; 0 keeps all.
    pub min_p: f64,
    /// Tokens of the prompt and the answer so far have their logits divided by this if positive and
    /// multiplied by it if negative (Keskar et al. 2019, arXiv 1909.05858); 1 changes nothing.
    pub repetition_penalty: f64,
}

impl Sampling {
    /// Always the most likely token.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 };
}

/// Most likely tokens that a share of the probability is looked for among before all are sorted.
const LIKELY: usize = 256;

/// The choices of one sequence. Choice `i` depends on the logits, the tokens before and the
/// sequence's own `i`-th draw, and on nothing else.
#[derive(Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
}

/// A choice among all tokens by their logits alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Plain {
    /// The first of the most likely ones.
    MostLikely,
    /// By the softmax at this temperature, with this draw in [0, 1).
    Drawn { temperature: f64, draw: f64 },
}

impl Sampler {
    pub fn new(sampling: Sampling, seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self { sampling, rng }
    }

    /// How new token number `index`, from 0, is chosen, where that takes all logits as they are.
    pub fn plain(&self, index: usize) -> Option<Plain> {
        let Sampling { temperature, top_k, top_p, min_p, repetition_penalty } = self.sampling;
        let of_all = top_k == 0 && top_p >= 1.0 && min_p <= 0.0;
        match temperature <= 0.0 {
            _ if repetition_penalty != 1.0 => None,
            true => Some(Plain::MostLikely),
            false => of_all.then(|| Plain::Drawn { temperature, draw: self.draw(index) }),
        }
    }

    /// New token number `index`, from 0, for the logits `[vocab]` after `tokens`.
    pub fn choose(&self, logits: &[f32], tokens: &[u32], index: usize) -> u32 {
        if self.sampling.repetition_penalty == 1.0 {
            return self.pick(logits, index);
        }
        self.pick(&self.penalised(logits, tokens), index)
    }

    fn penalised(&self, logits: &[f32], tokens: &[u32]) -> Vec<f32> {
        let penalty = self.sampling.repetition_penalty as f32;
        let mut penalised = logits.to_vec();
        for token in tokens {
            let logit = logits[*token as usize];
            penalised[*token as usize] = if logit > 0.0 { logit / penalty } else { logit * penalty };
        }
        penalised
    }

    fn pick(&self, logits: &[f32], index: usize) -> u32 {
        let best = argmax(logits);
        if self.sampling.temperature <= 0.0 {
            return best as u32;
        }
        let top = f64::from(logits[best]);
        let weight = |logit: f32| ((f64::from(logit) - top) / self.sampling.temperature).exp();
        let mut weights: Vec<(usize, f64)> = logits.iter().map(|&logit| weight(logit)).enumerate().collect();
        self.truncate(&mut weights);
        let mut remaining = self.draw(index) * sum(&weights);
        for (token, weight) in &weights {
            remaining -= weight;
            if remaining < 0.0 {
                return *token as u32;
            }
        }
        best as u32
    }

    /// The sequence's draw number `index`, uniform in [0, 1).
    fn draw(&self, index: usize) -> f64 {
        let mut rng = self.rng.clone();
        rng.set_word_pos(2 * index as u128); // a draw takes two words
        rng.random()
    }

    fn truncate(&self, weights: &mut Vec<(usize, f64)>) {
        let Sampling { top_k, top_p, min_p, .. } = self.sampling;
        if min_p > 0.0 && top_k == 0 && top_p >= 1.0 {
            return weights.retain(|(_, weight)| *weight >= min_p); // the most likely token weighs 1
        }
        if top_k > 0 {
            keep_largest(weights, top_k);
        }
        if top_p < 1.0 {
            let enough = top_p * sum(weights);
            let all = weights.clone();
            keep_largest(weights, LIKELY);
            if sum(weights) < enough {
                *weights = all;
            }
            weights.sort_by(by_weight);
            let mut before = 0.0;
            let kept = weights.iter().take_while(|(_, weight)| {
                let more = before < enough;
                before += weight;
                more
            });
            let kept = kept.count().max(1);
            weights.truncate(kept);
        }
        weights.retain(|(_, weight)| *weight >= min_p);
    }
}

/// The largest weight first; of equal ones, the smaller token.
fn by_weight(a: &(usize, f64), b: &(usize, f64)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn keep_largest(weights: &mut Vec<(usize, f64)>, count: usize) {
    if count < weights.len() {
        weights.select_nth_unstable_by(count, by_weight);
        weights.truncate(count);
        weights.sort_by(by_weight);
    }
}

fn sum(weights: &[(usize, f64)]) -> f64 {
    weights.iter().map(|(_, weight)| weight).sum()
}

/// The first of the largest values.
fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const PLAIN: Sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };

    fn drawn(sampling: Sampling, logits: &[f32]) -> BTreeSet<u32> {
        let sampler = Sampler::new(sampling, 1, 0);
        (0..500).map(|index| sampler.choose(logits, &[], index)).collect()
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.2].iter().map(|p| p.ln()).collect();
        let sampler = Sampler::new(PLAIN, 3, 0);
        let mut counts = [0.0f64; 3];
        (0..20_000).for_each(|index| counts[sampler.choose(&logits, &[], index) as usize] += 1.0 / 20_000.0);
        for (count, expected) in counts.iter().zip([0.5, 0.3, 0.2]) {
            assert!((count - expected).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn truncation_keeps_the_most_likely() {
        let logits = [0.0f32, 3.0, 2.0, -1.0]; // probabilities 0.035, 0.70, 0.26, 0.013
        assert_eq!(drawn(Sampling { top_k: 2, ..PLAIN }, &logits), [1, 2].into());
        assert_eq!(drawn(Sampling { top_p: 0.5, ..PLAIN }, &logits), [1].into());
        assert_eq!(drawn(Sampling { top_p: 0.9, ..PLAIN }, &logits), [1, 2].into());
        assert_eq!(drawn(Sampling { top_k: 1, ..PLAIN }, &logits), [1].into());
        assert_eq!(drawn(Sampling { min_p: 0.3, ..PLAIN }, &logits), [1, 2].into());
        assert_eq!(drawn(Sampling { min_p: 0.04, ..PLAIN }, &logits), [0, 1, 2].into());
        assert_eq!(drawn(Sampling { top_k: 3, min_p: 0.3, ..PLAIN }, &logits), [1, 2].into());
        assert_eq!(drawn(Sampling::GREEDY, &logits), [1].into());
    }

    #[test]
    fn a_share_of_a_flat_distribution_reaches_beyond_the_likely_ones() {
        let logits: Vec<f32> = (0..1000).map(|token| -1e-3 * token as f32).collect();
        let seen = drawn(Sampling { top_p: 0.9, ..PLAIN }, &logits);
        assert!(seen.iter().any(|token| *token > 600) && seen.iter().all(|token| *token < 900));
    }

    #[test]
    fn the_penalty_makes_seen_tokens_less_likely() {
        let sampler = Sampler::new(Sampling { repetition_penalty: 2.0, ..Sampling::GREEDY }, 0, 0);
        assert_eq!(sampler.choose(&[3.0, 2.0, -1.0], &[0], 0), 1);
        assert_eq!(sampler.choose(&[-1.0, -1.5, -9.0], &[0, 0], 0), 1, "once, however often it was seen");
        assert_eq!(sampler.choose(&[-1.0, -1.5, -9.0], &[0, 1, 2], 0), 0);
    }

    #[test]
    fn a_draw_depends_on_seed_stream_and_index_alone() {
        let draws = |seed, stream| {
            let sampler = Sampler::new(PLAIN, seed, stream);
            [5, 0, 1].map(|index| sampler.draw(index))
        };
        assert_eq!(draws(1, 2), draws(1, 2));
        assert_ne!(draws(1, 2), draws(1, 3));
        assert_ne!(draws(1, 2), draws(2, 2));
        let mut sequential = Sampler::new(PLAIN, 1, 2).rng;
        let first: [f64; 2] = [sequential.random(), sequential.random()];
        assert_eq!(first, [draws(1, 2)[1], draws(1, 2)[2]]);
    }
}
