//! Held-out pairs: which agree, which conflict, which are boilerplate, and what a policy scores.

use crate::TrainError;
use crate::cache::PolicyLogps;
use burn::tensor::Device;
use spo_core::{Objective, PairNumbers, Sides, differentiate};
use spo_data::{Dataset, Example, PairRef, Preference, Tokenizer};
use spo_eval::{Bootstrap, ConflictCount, DataSummary, DimensionScore, PairScore, ScoreKind, score_dimension};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// One split with what is known of each of its examples.
#[derive(Debug)]
pub struct LabelledSet {
    /// `train` or `held-out`.
    pub split: &'static str,
    /// The examples.
    pub dataset: Dataset,
    /// The dimensions of the run's rounds, in order.
    pub dimensions: Vec<String>,
    boilerplate: Vec<bool>,
}

impl LabelledSet {
    /// A split; an example is boilerplate if one of its answers, trimmed, is one of `phrases`.
    ///
    /// # Errors
    /// An answer cannot be decoded.
    pub fn new(
        split: &'static str,
        dataset: Dataset,
        dimensions: Vec<String>,
        phrases: &[String],
        tokenizer: &Tokenizer,
    ) -> Result<Self, TrainError> {
        let boilerplate = match phrases.is_empty() {
            true => vec![false; dataset.examples.len()],
            false => {
                let mut marks = Vec::with_capacity(dataset.examples.len());
                for example in &dataset.examples {
                    let texts =
                        example.answers.iter().map(|answer| tokenizer.decode(answer)).collect::<Result<Vec<_>, _>>()?;
                    marks.push(texts.iter().any(|text| phrases.iter().any(|phrase| text.trim() == phrase.trim())));
                }
                marks
            }
        };
        Ok(Self { split, dataset, dimensions, boilerplate })
    }

    /// The pairs of a dimension.
    pub fn pairs(&self, dimension: &str) -> Vec<PairRef> {
        self.dataset.pairs(dimension)
    }

    /// Per dimension: pairs, prompts, boilerplate, rows left out.
    pub fn summaries(&self) -> Vec<DataSummary> {
        let dropped = self.dataset.report.counts();
        let dropped: Vec<_> =
            dropped.into_iter().map(|(reason, count)| (reason.describe().to_string(), count)).collect();
        let summary = |dimension: &String| {
            let pairs = self.pairs(dimension);
            let prompts: BTreeSet<_> = pairs.iter().map(|pair| &self.dataset.examples[pair.example].prompt).collect();
            DataSummary {
                dimension: dimension.clone(),
                split: self.split.into(),
                pairs: pairs.len(),
                prompts: prompts.len(),
                boilerplate: pairs.iter().filter(|pair| self.boilerplate[pair.example]).count(),
                dropped: dropped.clone(),
            }
        };
        self.dimensions.iter().map(summary).collect()
    }

    /// Agreement of every two dimensions.
    pub fn conflicts(&self) -> Vec<ConflictCount> {
        let mut counts = vec![];
        for (index, first) in self.dimensions.iter().enumerate() {
            for second in self.dimensions[index + 1..].iter().filter(|second| *second != first) {
                let mut count = ConflictCount {
                    split: self.split.into(),
                    first: first.clone(),
                    second: second.clone(),
                    ..Default::default()
                };
                for (example, boilerplate) in self.dataset.examples.iter().zip(&self.boilerplate) {
                    match (example.pair(first), example.pair(second)) {
                        (Some(a), Some(b)) if a == b => count.agreeing += 1,
                        (Some(_), Some(_)) => {
                            count.conflicting += 1;
                            count.conflicting_boilerplate += usize::from(*boilerplate);
                        }
                        _ => {}
                    }
                }
                counts.push(count);
            }
        }
        counts
    }

    /// A pair's margins with what is known of the pairs, in the order of [`pairs`](Self::pairs).
    pub fn pair_scores(&self, dimension: &str, margins: &[f64]) -> Vec<PairScore> {
        let score = |(pair, margin): (PairRef, &f64)| {
            let example = &self.dataset.examples[pair.example];
            PairScore {
                example: pair.example,
                margin: *margin,
                agreeing: self.agreeing(example, dimension),
                boilerplate: self.boilerplate[pair.example],
                prompt: Some(hash_of(&example.prompt)),
            }
        };
        self.pairs(dimension).into_iter().zip(margins).map(score).collect()
    }

    /// Whether all other dimensions that prefer an answer prefer the same one.
    fn agreeing(&self, example: &Example, dimension: &str) -> Option<bool> {
        let own = example.labels.get(dimension)?;
        let others = self.dimensions.iter().filter(|other| *other != dimension);
        let labels = others.filter_map(|other| example.labels.get(other)).filter(|label| **label != Preference::Tie);
        labels.map(|label| label == own).reduce(|all, one| all && one)
    }
}

fn hash_of(prompt: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    prompt.hash(&mut hasher);
    hasher.finish()
}

/// `Δ log(π/π_0)` of every pair.
pub fn log_ratio_margins(policy: &Sides<Vec<f64>>, start: &Sides<Vec<f64>>) -> Vec<f64> {
    let sides = policy.chosen.iter().zip(&start.chosen).zip(policy.rejected.iter().zip(&start.rejected));
    sides.map(|((pw, sw), (pl, sl))| (pw - sw) - (pl - sl)).collect()
}

/// The scores of a policy on one dimension under the kinds that need the round's objective:
/// `α Δ log(π_n/π_{n−1})`, `Δ r̂_n`, `β Δ log(π_n/π_0)`.
///
/// # Errors
/// The objective lacks an input, or a score is not finite.
#[allow(clippy::too_many_arguments)]
pub fn reward_scores(
    set: &LabelledSet,
    policy_name: &str,
    dimension: &str,
    policy: &PolicyLogps,
    earlier: &[PolicyLogps],
    objective: &dyn Objective,
    beta: f64,
    bootstrap: &Bootstrap,
    device: &Device,
) -> Result<Vec<DimensionScore>, TrainError> {
    let pairs = set.pairs(dimension);
    let own = policy.sides(&set.dataset, &pairs, |_| true)?;
    let earlier =
        earlier.iter().map(|logps| logps.sides(&set.dataset, &pairs, |_| true)).collect::<Result<Vec<_>, _>>()?;
    let total = log_ratio_margins(&own, &earlier[0]).into_iter().map(|margin| beta * margin).collect();
    let mut numbers = PairNumbers::new(own.chosen, own.rejected);
    numbers.reference = earlier.last().cloned();
    numbers.earlier = earlier;
    let lengths = |answer: fn(&PairRef) -> usize| {
        pairs.iter().map(|pair| set.dataset.examples[pair.example].answers[answer(pair)].len() as f64).collect()
    };
    numbers.lengths = Some(Sides { chosen: lengths(|pair| pair.chosen), rejected: lengths(|pair| pair.rejected) });
    let result = differentiate(objective, &numbers, device)?;
    let round: Vec<f64> = result.chosen_reward.iter().zip(&result.rejected_reward).map(|(w, l)| w - l).collect();
    let implicit = match &result.carry {
        Some(carry) => round.iter().zip(carry).map(|(margin, carry)| margin - carry).collect(),
        None => round.clone(),
    };
    let kinds =
        [(ScoreKind::RoundReward, round), (ScoreKind::ImplicitReward, implicit), (ScoreKind::TotalReward, total)];
    let scored = kinds.into_iter().map(|(kind, margins): (_, Vec<f64>)| {
        let score = score_dimension(policy_name, dimension, &set.pair_scores(dimension, &margins), bootstrap)?;
        Ok(score.of_kind(kind))
    });
    scored.collect()
}
