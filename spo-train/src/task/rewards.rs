//! A loss on the rewards that a score head gives the answers of pairs, with their critiques where it takes any.

use super::data::strength;
use super::{StepTally, Task};
use crate::TrainError;
use crate::step::tape::{LogpGradients, Scored};
use burn::tensor::Device;
use spo_core::objective::{RewardNumbers, RewardObjective, differentiate_rewards};
use spo_data::{Dataset, Group, PackedBatch, PairRef, Tokenizer, Units};
use spo_model::CausalLm;
use spo_model::reward::{Critic, Critiqued};
use std::sync::Arc;

/// Fields of a row that hold the critiques of its chosen and its rejected answer.
pub(super) const CRITIQUES: [&str; 2] = ["chosen_critique", "rejected_critique"];

/// The pairs of a dimension with what the data say of them.
#[derive(Debug)]
pub struct RewardTask<'a> {
    dataset: &'a Dataset,
    pairs: Vec<RewardPair>,
    objective: Arc<dyn RewardObjective>,
    device: Device,
}

/// Two answers whose rewards are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardPair {
    /// The answers; of a tie in their own order.
    pub answers: PairRef,
    /// Whether neither is better.
    pub tie: bool,
    /// By how much the chosen one is better; 0 where the loss does not ask.
    pub strength: f64,
    /// The chosen and the rejected answer with their critiques, where there are any.
    pub critiqued: [Option<Critiqued>; 2],
}

impl RewardPair {
    /// The pairs of a dimension that an objective learns from, ties behind the others.
    ///
    /// # Errors
    /// A critique cannot be encoded.
    pub fn all(
        dataset: &Dataset,
        dimension: &str,
        objective: &dyn RewardObjective,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<Self>, TrainError> {
        let critic = objective.critique().map(|critique| Critic::new(tokenizer, critique.max_tokens)).transpose()?;
        let pair = |answers: PairRef, tie: bool| -> Result<Self, TrainError> {
            let strength = match objective.needs_strengths() && !tie {
                true => strength(dataset, dimension, &answers),
                false => 0.0,
            };
            let example = &dataset.examples[answers.example];
            let critiqued = |answer: usize, key: &str| {
                let (Some(critic), Some(text)) = (&critic, example.tags.get(key)) else { return Ok(None) };
                critic.given(tokenizer, &example.answers[answer], text).map(Some)
            };
            let [chosen, rejected] = CRITIQUES;
            let critiqued = [critiqued(answers.chosen, chosen)?, critiqued(answers.rejected, rejected)?];
            Ok(Self { answers, tie, strength, critiqued })
        };
        let ties = if objective.takes_ties() { dataset.ties(dimension) } else { vec![] };
        let (ordered, ties) = (dataset.pairs(dimension).into_iter(), ties.into_iter());
        ordered.map(|answers| pair(answers, false)).chain(ties.map(|answers| pair(answers, true))).collect()
    }

    /// A pair of which nothing is known but which answer is better.
    pub fn plain(answers: PairRef) -> Self {
        Self { answers, tie: false, strength: 0.0, critiqued: [None, None] }
    }

    /// The prompt with both answers, and their critiques behind them.
    pub fn group<'d>(&'d self, dataset: &'d Dataset) -> Group<'d> {
        let PairRef { example, chosen, rejected } = self.answers;
        let example = &dataset.examples[example];
        let text = |(critiqued, answer): (&'d Option<Critiqued>, usize)| match critiqued {
            Some(critiqued) => critiqued.tokens.as_slice(),
            None => &example.answers[answer],
        };
        let answers = self.critiqued.iter().zip([chosen, rejected]).map(text).collect();
        Group { prompt: &example.prompt, answers }
    }
}

impl<'a> RewardTask<'a> {
    /// A task over `pairs`. Their numbers are computed on `device`.
    pub fn new(
        dataset: &'a Dataset,
        pairs: Vec<RewardPair>,
        objective: Arc<dyn RewardObjective>,
        device: Device,
    ) -> Self {
        Self { dataset, pairs, objective, device }
    }
}

impl Task for RewardTask<'_> {
    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn units(&self) -> Units {
        self.dataset.units(self.pairs.iter().map(|pair| pair.answers.example))
    }

    fn group(&self, row: usize) -> Group<'_> {
        self.pairs[row].group(self.dataset)
    }

    fn answers(&self, row: usize) -> Vec<&[u32]> {
        let PairRef { example, chosen, rejected } = self.pairs[row].answers;
        let answers = &self.dataset.examples[example].answers;
        vec![&answers[chosen], &answers[rejected]]
    }

    fn id(&self, row: usize) -> &str {
        &self.dataset.examples[self.pairs[row].answers.example].id
    }

    fn gives_rewards(&self) -> bool {
        true
    }

    fn pack(&self, model: &CausalLm, rows: &[usize], groups: &[Group]) -> PackedBatch {
        let pooling = model.score.as_ref().expect("a reward run's models have a score head").pooling;
        let mut read = vec![];
        for (&row, group) in rows.iter().zip(groups) {
            for (critiqued, answer) in self.pairs[row].critiqued.iter().zip(&group.answers) {
                let from = critiqued.as_ref().map_or(answer.len(), |critiqued| critiqued.from);
                read.push(pooling.row(group.prompt, answer, from));
            }
        }
        PackedBatch::with_values(groups, &read)
    }

    fn logp_gradients(
        &self,
        rows: &[usize],
        _batch: &PackedBatch,
        scored: &Scored,
        step: &mut StepTally,
    ) -> Result<LogpGradients, TrainError> {
        let side =
            |answer: usize| scored.values.iter().skip(answer).step_by(2).map(|value| f64::from(*value)).collect();
        let of = |number: fn(&RewardPair) -> f64| rows.iter().map(|&row| number(&self.pairs[row])).collect();
        let numbers = RewardNumbers {
            chosen: side(0),
            rejected: side(1),
            strengths: Some(of(|pair| pair.strength)),
            ties: of(|pair| f64::from(pair.tie)),
        };
        let gradient = differentiate_rewards(self.objective.as_ref(), &numbers, &self.device)?;
        step.step_zero = None; // a fresh head's rewards are arbitrary
        step.loss += gradient.losses.iter().sum::<f64>();
        let tally = step.preference.get_or_insert_default();
        for (index, &row) in rows.iter().enumerate() {
            let margin = numbers.chosen[index] - numbers.rejected[index];
            tally.margin += if self.pairs[row].tie { 0.0 } else { margin };
            tally.correct += match self.pairs[row].tie {
                true => 0.5, // neither right nor wrong
                false => f64::from(margin > 0.0),
            };
        }
        // The critiques' tokens are the only ones that are predicted.
        let weight = self.objective.critique().map_or(0.0, |critique| critique.weight);
        step.loss -= weight * scored.logps.iter().map(|logp| f64::from(*logp)).sum::<f64>();
        let logps = vec![(-weight / step.weight) as f32; scored.logps.len()];
        let values =
            gradient.d_chosen.iter().zip(&gradient.d_rejected).flat_map(|(chosen, rejected)| [chosen, rejected]);
        let values = values.map(|gradient| (gradient / step.weight) as f32).collect();
        Ok(LogpGradients { logps, values, head_only: false, divergence: None })
    }
}
