//! A loss on lists of scored answers to one prompt.

use super::{StepTally, Task, spread, sums};
use crate::TrainError;
use crate::step::tape::{LogpGradients, Scored};
use burn::tensor::Device;
use spo_core::objective::{ListNumbers, ListObjective, differentiate_lists};
use spo_data::{Dataset, Group, PackedBatch, Units};
use std::sync::Arc;

/// The scored lists of a dimension with their log-probs under the reference.
#[derive(Debug)]
pub struct ListTask<'a> {
    dataset: &'a Dataset,
    lists: Vec<usize>,
    gains: Vec<Vec<f64>>,
    objective: Arc<dyn ListObjective>,
    reference: Vec<Vec<f64>>,
    device: Device,
}

impl<'a> ListTask<'a> {
    /// A task over every scored list of a dimension; `reference` holds the log-probs of each list's answers, in the
    /// order of [`Dataset::lists`].
    pub fn new(
        dataset: &'a Dataset,
        dimension: &str,
        objective: impl Into<Arc<dyn ListObjective>>,
        reference: Vec<Vec<f64>>,
        device: Device,
    ) -> Self {
        let lists = dataset.lists(dimension);
        let gains = |&list: &usize| {
            let scores = dataset.examples[list].list_scores(dimension).unwrap_or_default();
            scores.iter().map(|score| f64::from(*score)).collect()
        };
        let gains = lists.iter().map(gains).collect();
        Self { dataset, lists, gains, objective: objective.into(), reference, device }
    }
}

impl Task for ListTask<'_> {
    fn len(&self) -> usize {
        self.lists.len()
    }

    fn units(&self) -> Units {
        self.dataset.units(self.lists.iter().copied())
    }

    fn group(&self, row: usize) -> Group<'_> {
        let example = &self.dataset.examples[self.lists[row]];
        Group { prompt: &example.prompt, answers: example.answers.iter().map(|answer| answer.as_slice()).collect() }
    }

    fn id(&self, row: usize) -> &str {
        &self.dataset.examples[self.lists[row]].id
    }

    fn logp_gradients(
        &self,
        rows: &[usize],
        batch: &PackedBatch,
        scored: &Scored,
        step: &mut StepTally,
    ) -> Result<LogpGradients, TrainError> {
        let mut answers = sums(batch, scored.logps).into_iter();
        let numbers = ListNumbers {
            policy: rows.iter().map(|&row| answers.by_ref().take(self.gains[row].len()).collect()).collect(),
            reference: rows.iter().map(|&row| self.reference[row].clone()).collect(),
            gains: rows.iter().map(|&row| self.gains[row].clone()).collect(),
        };
        let gradient = differentiate_lists(self.objective.as_ref(), &numbers, &self.device)?;
        step.step_zero = None; // depends on the order in which answers of equal scores are given
        step.loss += gradient.losses.iter().sum::<f64>();
        let tally = step.preference.get_or_insert_default();
        for (index, gains) in numbers.gains.iter().enumerate() {
            let side = |answer: usize| {
                let ratio = numbers.policy[index][answer] - numbers.reference[index][answer];
                (gradient.reward[index][answer], ratio)
            };
            let best = (0..gains.len()).reduce(|a, b| if gains[b] > gains[a] { b } else { a });
            let worst = (0..gains.len()).reduce(|a, b| if gains[b] < gains[a] { b } else { a });
            tally.add(best.map(side), worst.map(side));
            let answers = &self.dataset.examples[self.lists[rows[index]]].answers;
            tally.chosen_tokens += best.map_or(0.0, |best| answers[best].len() as f64);
        }
        let logp_gradients = gradient.d_policy.iter().flatten().map(|gradient| gradient / step.weight);
        Ok(spread(batch, logp_gradients, scored.logps.len()).into())
    }
}
