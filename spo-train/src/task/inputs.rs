//! What is fixed about every pair before a round: the words of frozen policies and of the data.

use spo_core::pair::SampledLogps;
use spo_core::{PairNumbers, Sides};
use spo_data::{Dataset, PairRef};
use spo_model::CausalLm;

/// Everything that an objective may look at besides the policy in training.
#[derive(Debug)]
pub struct PairInputs {
    /// One entry per pair. The log-probs of the policy are not used; pairs that are never visited may hold NaN.
    pub numbers: PairNumbers,
    /// The answer of the reference to each pair's prompt (selm), with its log-probs in `numbers.sampled`.
    pub sampled: Vec<Vec<u32>>,
    /// The reference itself, where its whole distributions are needed (tdpo).
    pub reference: Option<CausalLm>,
}

/// Answers sampled from the reference, with their log-probs under it; one per pair.
#[derive(Debug, Clone, Default)]
pub struct Sampled {
    /// Token ids.
    pub answers: Vec<Vec<u32>>,
    /// `log π_ref(y|x)`.
    pub logps: Vec<f64>,
}

impl PairInputs {
    /// The log-probs of `π_0 … π_{n−1}` on the pairs, the last of which is the reference, and the answers' lengths.
    pub fn new(dataset: &Dataset, pairs: &[PairRef], earlier: Vec<Sides<Vec<f64>>>) -> Self {
        let length = |answer: fn(&PairRef) -> usize| {
            pairs.iter().map(|pair| dataset.examples[pair.example].answers[answer(pair)].len() as f64).collect()
        };
        let mut numbers = PairNumbers::new(vec![0.0; pairs.len()], vec![0.0; pairs.len()]);
        numbers.reference = earlier.last().cloned();
        numbers.earlier = earlier;
        numbers.lengths = Some(Sides { chosen: length(|pair| pair.chosen), rejected: length(|pair| pair.rejected) });
        Self { numbers, sampled: vec![], reference: None }
    }

    /// With answers sampled from the reference.
    pub fn with_sampled(mut self, sampled: Sampled) -> Self {
        let policy = vec![0.0; sampled.logps.len()];
        self.numbers.sampled = Some(SampledLogps { policy, reference: sampled.logps });
        self.sampled = sampled.answers;
        self
    }
}
