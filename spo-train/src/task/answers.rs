//! A loss on single answers, each labelled desirable or not.

use super::ahead::WholeBatch;
use super::{Ahead, StepAhead, StepTally, Task, spread, sums};
use crate::TrainError;
use crate::policy::dealt;
use crate::step::tape::{LogpGradients, Scored};
use burn::tensor::Device;
use spo_core::CoreError;
use spo_core::objective::{AnswerNumbers, UnpairedObjective, differentiate_answers};
use spo_data::{AnswerRef, Dataset, Group, PackedBatch, Units};
use std::sync::Arc;

/// The answers of a dimension with their log-probs under the reference.
#[derive(Debug)]
pub struct UnpairedTask<'a> {
    dataset: &'a Dataset,
    answers: Vec<AnswerRef>,
    objective: Arc<dyn UnpairedObjective>,
    reference: Vec<f64>,
    mismatched: Option<Mismatched>,
    device: Device,
}

/// Each row's prompt with the answer of another row: what the KL from the reference is estimated on (KTO).
#[derive(Debug, Clone)]
pub struct Mismatched {
    /// For each row the row whose answer it borrows.
    pub partner: Vec<usize>,
    /// Most tokens of prompt and borrowed answer; the answer's end is cut.
    pub limit: usize,
    /// Log-prob of the borrowed answer after the row's prompt under the reference.
    pub reference: Vec<f64>,
}

impl Mismatched {
    /// The prompt of a row and the answer it borrows.
    pub fn row<'d>(&self, dataset: &'d Dataset, answers: &[AnswerRef], row: usize) -> (&'d [u32], &'d [u32]) {
        let prompt = dataset.examples[answers[row].example].prompt.as_slice();
        let other = answers[self.partner[row]];
        let answer = dataset.examples[other.example].answers[other.answer].as_slice();
        (prompt, &answer[..answer.len().min(self.limit.saturating_sub(prompt.len()))])
    }
}

impl<'a> UnpairedTask<'a> {
    /// A task over `answers` with their log-probs under the reference.
    ///
    /// # Errors
    /// The objective estimates the KL and there are no mismatched answers.
    pub fn new(
        dataset: &'a Dataset,
        answers: Vec<AnswerRef>,
        objective: impl Into<Arc<dyn UnpairedObjective>>,
        reference: Vec<f64>,
        mismatched: Option<Mismatched>,
        device: Device,
    ) -> Result<Self, TrainError> {
        let objective = objective.into();
        if objective.needs_kl() && mismatched.is_none() {
            let input = "mismatched prompts and answers".into();
            return Err(CoreError::MissingInput { objective: objective.name().into(), input }.into());
        }
        Ok(Self { dataset, answers, objective, reference, mismatched, device })
    }

    fn numbers(&self, rows: &[usize], policy: Vec<f64>, kl: f64) -> AnswerNumbers {
        AnswerNumbers {
            policy,
            reference: rows.iter().map(|&row| self.reference[row]).collect(),
            desirable: rows.iter().map(|&row| f64::from(self.answers[row].desirable)).collect(),
            kl,
        }
    }

    /// The policy's sums of one answer per group.
    fn score(&self, step: &StepAhead, groups: &[Group]) -> Result<Vec<f64>, TrainError> {
        let sum = |answers: &Vec<Vec<f32>>| answers[0].iter().map(|logp| f64::from(*logp)).sum();
        let score = |groups: &[Group]| {
            let scored = step.model.score(groups, step.token_budget, step.head, &mut |_| ());
            scored.iter().map(sum).collect()
        };
        Ok(dealt::scored(step.team, groups, step.token_budget, score)?)
    }
}

impl Task for UnpairedTask<'_> {
    fn len(&self) -> usize {
        self.answers.len()
    }

    fn units(&self) -> Units {
        self.dataset.units(self.answers.iter().map(|answer| answer.example))
    }

    fn group(&self, row: usize) -> Group<'_> {
        let row = self.answers[row];
        let example = &self.dataset.examples[row.example];
        Group { prompt: &example.prompt, answers: vec![&example.answers[row.answer]] }
    }

    fn id(&self, row: usize) -> &str {
        &self.dataset.examples[self.answers[row].example].id
    }

    fn look_ahead(&self, step: &StepAhead) -> Result<Option<Ahead>, TrainError> {
        if let Some(mismatched) = self.mismatched.as_ref().filter(|_| self.objective.needs_kl()) {
            let group = |&row: &usize| {
                let (prompt, answer) = mismatched.row(self.dataset, &self.answers, row);
                Group { prompt, answers: vec![answer] }
            };
            let policy = self.score(step, &step.rows.iter().map(group).collect::<Vec<_>>())?;
            let ratios = policy.iter().zip(step.rows).map(|(logp, &row)| logp - mismatched.reference[row]);
            return Ok(Some(Ahead::Kl(ratios.sum::<f64>() / step.rows.len() as f64)));
        }
        if !self.objective.whole_batch() || step.batches.len() < 2 {
            return Ok(None);
        }
        let groups: Vec<Group> = step.rows.iter().map(|&row| self.group(row)).collect();
        let numbers = self.numbers(step.rows, self.score(step, &groups)?, 0.0);
        Ok(Some(Ahead::Answers(Arc::new(WholeBatch { rows: step.rows.to_vec(), numbers }))))
    }

    fn logp_gradients(
        &self,
        rows: &[usize],
        batch: &PackedBatch,
        scored: &Scored,
        step: &mut StepTally,
    ) -> Result<LogpGradients, TrainError> {
        let kl = match step.ahead {
            Some(Ahead::Kl(kl)) => kl,
            _ => 0.0,
        };
        let numbers = self.numbers(rows, sums(batch, scored.logps), kl);
        let (whole, places) = match &step.ahead {
            Some(Ahead::Answers(whole)) => (&whole.numbers, whole.places(rows)),
            _ => (&numbers, (0..rows.len()).collect()),
        };
        let gradient = differentiate_answers(self.objective.as_ref(), whole, &self.device)?;
        step.loss += places.iter().map(|&place| gradient.losses[place]).sum::<f64>();
        let tally = step.preference.get_or_insert_default();
        for (index, &place) in places.iter().enumerate() {
            let side = Some((gradient.reward[place], numbers.policy[index] - numbers.reference[index]));
            let desirable = numbers.desirable[index] == 1.0;
            if desirable {
                tally.add(side, None);
                tally.chosen_tokens += batch.sequences[index].len() as f64;
            } else {
                tally.add(None, side);
            }
        }
        let expected =
            rows.iter().map(|&row| self.objective.step_zero(self.answers[row].desirable)).sum::<Option<f64>>();
        step.step_zero = step.step_zero.zip(expected).map(|(sum, expected)| sum + expected);
        let logp_gradients = places.iter().map(|&place| gradient.d_policy[place] / step.weight);
        Ok(spread(batch, logp_gradients, scored.logps.len()).into())
    }
}
