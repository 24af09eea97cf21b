//! Held-out pairs: which agree, which conflict, which are boilerplate, and what a policy scores.

use crate::TrainError;
use crate::config::{ArmPlan, RunPlan, holds_earlier};
use crate::policy::logps::PolicyLogps;
use crate::task::build::Lambdas;
use burn::tensor::Device;
use spo_core::{Objective, PairNumbers, Sides, differentiate};
use spo_data::{Dataset, Example, Preference, Tokenizer};
use spo_eval::{Bootstrap, ConflictCount, DataSummary, DimensionScore, PairScore, ScoreKind, score_dimension};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is evaluated along a dimension: a pair, or one answer that is desirable (chosen) or not (rejected).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// Index of the example.
    pub example: usize,
    /// Index of the chosen answer.
    pub chosen: Option<usize>,
    /// Index of the rejected answer.
    pub rejected: Option<usize>,
}

/// One split with what is known of each of its examples.
#[derive(Debug)]
pub struct LabelledSet {
    /// `train` or `held-out`.
    pub split: &'static str,
    /// The examples.
    pub dataset: Arc<Dataset>,
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
        Ok(Self { split, dataset: Arc::new(dataset), dimensions, boilerplate })
    }

    /// The pairs of a dimension and its single answers, in example order.
    pub fn judged(&self, dimension: &str) -> Vec<Judged> {
        let of = |(index, example): (usize, &Example)| match (example.pair(dimension), example.desirable(dimension)) {
            (Some((chosen, rejected)), _) => {
                Some(Judged { example: index, chosen: Some(chosen), rejected: Some(rejected) })
            }
            (None, Some(true)) => Some(Judged { example: index, chosen: Some(0), rejected: None }),
            (None, Some(false)) => Some(Judged { example: index, chosen: None, rejected: Some(0) }),
            (None, None) => None,
        };
        self.dataset.examples.iter().enumerate().filter_map(of).collect()
    }

    /// A policy's log-probs of judged rows, chosen and rejected; an absent answer has 0, so that differences of two
    /// policies are those of the answer that is there.
    ///
    /// # Errors
    /// [`TrainError::CacheMiss`]
    pub fn logps(&self, policy: &PolicyLogps, rows: &[Judged]) -> Result<Sides<Vec<f64>>, TrainError> {
        let look_up = |example: usize, answer: Option<usize>| {
            let example = &self.dataset.examples[example];
            answer.map_or(Ok(0.0), |answer| policy.logp(&example.id, &example.prompt, &example.answers[answer]))
        };
        Ok(Sides {
            chosen: rows.iter().map(|row| look_up(row.example, row.chosen)).collect::<Result<_, _>>()?,
            rejected: rows.iter().map(|row| look_up(row.example, row.rejected)).collect::<Result<_, _>>()?,
        })
    }

    /// Per dimension: pairs, prompts, boilerplate, rows left out.
    pub fn summaries(&self) -> Vec<DataSummary> {
        let dropped = self.dataset.report.counts();
        let dropped: Vec<_> =
            dropped.into_iter().map(|(reason, count)| (reason.describe().to_string(), count)).collect();
        let summary = |dimension: &String| {
            let pairs = self.judged(dimension);
            let prompts: BTreeSet<_> =
                pairs.iter().map(|pair| self.dataset.examples[pair.example].prompt_key()).collect();
            DataSummary {
                dimension: dimension.clone(),
                split: self.split.into(),
                pairs: pairs.len(),
                prompts: prompts.len(),
                boilerplate: pairs.iter().filter(|pair| self.boilerplate[pair.example]).count(),
                dropped: dropped.clone(),
                unused: self.dataset.report.unused().collect(),
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

    /// Margins with what is known of their rows, in the order of [`judged`](Self::judged).
    pub fn pair_scores(&self, dimension: &str, margins: &[f64]) -> Vec<PairScore> {
        let score = |(pair, margin): (Judged, &f64)| {
            let example = &self.dataset.examples[pair.example];
            PairScore {
                example: pair.example,
                margin: *margin,
                agreeing: self.agreeing(example, dimension),
                boilerplate: self.boilerplate[pair.example],
                prompt: Some(example.prompt_key()),
            }
        };
        self.judged(dimension).into_iter().zip(margins).map(score).collect()
    }

    /// Whether all other dimensions that prefer an answer prefer the same one.
    fn agreeing(&self, example: &Example, dimension: &str) -> Option<bool> {
        let own = example.labels.get(dimension)?;
        let others = self.dimensions.iter().filter(|other| *other != dimension);
        let labels = others.filter_map(|other| example.labels.get(other)).filter(|label| **label != Preference::Tie);
        labels.map(|label| label == own).reduce(|all, one| all && one)
    }
}

/// `Δ log(π/π_0)` of every row: of a single answer `log(π/π_0)`, negated where it is undesirable.
pub fn log_ratio_margins(policy: &Sides<Vec<f64>>, start: &Sides<Vec<f64>>) -> Vec<f64> {
    let sides = policy.chosen.iter().zip(&start.chosen).zip(policy.rejected.iter().zip(&start.rejected));
    sides.map(|((pw, sw), (pl, sl))| (pw - sw) - (pl - sl)).collect()
}

/// The scores of a policy on one dimension under the kinds that need the round's coefficients:
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
    earlier: &[&PolicyLogps],
    rewards: &Rewards,
    bootstrap: &Bootstrap,
    device: &Device,
) -> Result<Vec<DimensionScore>, TrainError> {
    let rows = set.judged(dimension);
    let own = set.logps(policy, &rows)?;
    let earlier = earlier.iter().map(|logps| set.logps(logps, &rows)).collect::<Result<Vec<_>, _>>()?;
    let scaled = |other: &Sides<Vec<f64>>, scale: f64| -> Vec<f64> {
        log_ratio_margins(&own, other).into_iter().map(|margin| scale * margin).collect()
    };
    let reference = earlier.last().expect("every round has a policy before it");
    let (round, total) = (scaled(reference, rewards.scale), scaled(&earlier[0], rewards.first_scale));
    let mut implicit = round.clone();
    if let Some(objective) = &rewards.sequential {
        let mut numbers = PairNumbers::new(own.chosen.clone(), own.rejected.clone());
        numbers.reference = Some(reference.clone());
        numbers.earlier = earlier;
        if let Some(margin_offset) = differentiate(objective.as_ref(), &numbers, device)?.margin_offset {
            implicit.iter_mut().zip(margin_offset).for_each(|(margin, margin_offset)| *margin -= margin_offset);
        }
    }
    let kinds =
        [(ScoreKind::RoundReward, round), (ScoreKind::ImplicitReward, implicit), (ScoreKind::TotalReward, total)];
    let scored = kinds.into_iter().map(|(kind, margins): (_, Vec<f64>)| {
        let score = score_dimension(policy_name, dimension, &set.pair_scores(dimension, &margins), bootstrap)?;
        Ok(score.of_kind(kind))
    });
    scored.collect()
}

/// The coefficients that make rewards of an arm's log-ratios.
#[derive(Debug)]
pub struct Rewards {
    /// `α` of the arm; 1 where its loss makes no reward of log-ratios.
    pub scale: f64,
    /// `β` of round 1.
    pub first_scale: f64,
    /// The objective without further options, if it holds earlier dimensions.
    pub sequential: Option<Arc<dyn Objective>>,
}

impl Rewards {
    /// Those of an arm in a plan, with the λ that were found in training.
    ///
    /// # Errors
    /// Options that the objective refuses.
    pub(crate) fn of(plan: &RunPlan, arm: &ArmPlan, found: &Lambdas) -> Result<Self, TrainError> {
        let scale = |arm: &ArmPlan| arm.objectives.reward_scale(&arm.objective, &arm.options).unwrap_or(1.0);
        let sequential = match holds_earlier(&arm.objectives, &arm.objective) {
            true => {
                let own = arm.objectives.entry(&arm.objective)?.options;
                let mut options = arm.options.clone();
                options.retain(|key, _| own.iter().any(|option| option.key == key));
                Some(found.held(arm.objectives.build(&arm.objective, &options)?.into()))
            }
            false => None,
        };
        Ok(Self { scale: scale(arm), first_scale: scale(plan.rounds[0].main()), sequential })
    }
}
