//! A preference objective on the pairs of one dimension, against cached log-probs.

use super::{Task, WindowTally};
use crate::TrainError;
use burn::tensor::Device;
use spo_core::{Objective, PairNumbers, Sides, differentiate};
use spo_data::{Dataset, Group, PackedBatch, PairRef, micro_batches};

/// The pairs of a dimension with the sequence log-probs of all earlier policies.
#[derive(Debug)]
pub struct PreferenceTask<'a> {
    dataset: &'a Dataset,
    pairs: Vec<PairRef>,
    objective: Box<dyn Objective>,
    /// `π_0 … π_{n−1}`, oldest first; each `[pairs]`.
    earlier: Vec<Sides<Vec<f64>>>,
    device: Device,
}

impl<'a> PreferenceTask<'a> {
    /// A task over `pairs`. `earlier` holds the log-probs of `π_0 … π_{n−1}` on them.
    ///
    /// # Errors
    /// The objective needs something that a run does not have.
    pub fn new(
        dataset: &'a Dataset,
        pairs: Vec<PairRef>,
        objective: Box<dyn Objective>,
        earlier: Vec<Sides<Vec<f64>>>,
        device: Device,
    ) -> Result<Self, TrainError> {
        let task = Self { dataset, pairs, objective, earlier, device };
        let first: Vec<usize> = (0..task.len().min(1)).collect();
        let zeros = vec![0.0; first.len()];
        // Missing inputs show now, not at the first step.
        task.objective.needs().check(task.objective.name(), &task.numbers(&first, zeros.clone(), zeros))?;
        Ok(task)
    }

    /// SPO's `c` on some pairs; it depends on frozen policies only.
    ///
    /// # Errors
    /// The objective lacks an input.
    pub fn carry(&self, rows: &[usize]) -> Result<Option<Vec<f64>>, TrainError> {
        let reference = self.earlier.last().expect("every round has a policy before it");
        let of = |side: &[f64]| rows.iter().map(|&row| side[row]).collect();
        let numbers = self.numbers(rows, of(&reference.chosen), of(&reference.rejected));
        Ok(differentiate(self.objective.as_ref(), &numbers, &self.device)?.carry)
    }

    /// The rows' numbers for the objective, with these log-probs of the policy.
    pub fn numbers(&self, rows: &[usize], policy_chosen: Vec<f64>, policy_rejected: Vec<f64>) -> PairNumbers {
        let pick = |sides: &Sides<Vec<f64>>| Sides {
            chosen: rows.iter().map(|&row| sides.chosen[row]).collect(),
            rejected: rows.iter().map(|&row| sides.rejected[row]).collect(),
        };
        let length = |answer: fn(&PairRef) -> usize| {
            let tokens = |&row: &usize| {
                let pair = &self.pairs[row];
                self.dataset.examples[pair.example].answers[answer(pair)].len() as f64
            };
            rows.iter().map(tokens).collect()
        };
        let mut numbers = PairNumbers::new(policy_chosen, policy_rejected);
        numbers.reference = self.earlier.last().map(pick);
        numbers.earlier = self.earlier.iter().map(pick).collect();
        numbers.lengths = Some(Sides { chosen: length(|pair| pair.chosen), rejected: length(|pair| pair.rejected) });
        numbers
    }
}

impl Task for PreferenceTask<'_> {
    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn group(&self, row: usize) -> Group<'_> {
        let pair = &self.pairs[row];
        let example = &self.dataset.examples[pair.example];
        Group { prompt: &example.prompt, answers: vec![&example.answers[pair.chosen], &example.answers[pair.rejected]] }
    }

    fn id(&self, row: usize) -> &str {
        &self.dataset.examples[self.pairs[row].example].id
    }

    fn weight(&self, groups: &[Group]) -> f64 {
        groups.len() as f64
    }

    fn split(&self, lengths: &[usize], token_budget: usize) -> Result<Vec<Vec<usize>>, TrainError> {
        let batches = micro_batches(lengths, token_budget);
        if self.objective.needs().whole_window && batches.len() > 1 {
            return Err(TrainError::Objective {
                name: self.objective.name().into(),
                reason: format!(
                    "it compares all pairs of a window, but {} pairs with {} tokens do not fit tokens-per-micro-batch = {token_budget}",
                    lengths.len(),
                    lengths.iter().sum::<usize>()
                ),
            });
        }
        Ok(batches)
    }

    fn slopes(
        &self,
        rows: &[usize],
        batch: &PackedBatch,
        logps: &[f32],
        window: &mut WindowTally,
    ) -> Result<Vec<f32>, TrainError> {
        let sums: Vec<f64> =
            batch.sequences.iter().map(|tokens| logps[tokens.clone()].iter().map(|l| f64::from(*l)).sum()).collect();
        let side = |first: usize| sums.iter().skip(first).step_by(2).copied().collect::<Vec<f64>>();
        let numbers = self.numbers(rows, side(0), side(1));
        let gradient = differentiate(self.objective.as_ref(), &numbers, &self.device)?;
        tally(&numbers, &gradient, window);
        if let Some(total) = &mut window.step_zero {
            match step_zero(self.objective.as_ref(), &numbers, &self.device)? {
                Some(mean) => *total += mean * rows.len() as f64,
                None => window.step_zero = None,
            }
        }
        let mut slopes = vec![0.0; logps.len()];
        for (sequence, tokens) in batch.sequences.iter().enumerate() {
            let of_side = if sequence % 2 == 0 { &gradient.d_chosen } else { &gradient.d_rejected };
            slopes[tokens.clone()].fill((of_side[sequence / 2] / window.weight) as f32);
        }
        Ok(slopes)
    }
}

fn tally(numbers: &PairNumbers, gradient: &spo_core::PairGradient, window: &mut WindowTally) {
    window.loss += gradient.losses.iter().sum::<f64>();
    let sums = window.preference.get_or_insert_default();
    for index in 0..numbers.len() {
        let margin = gradient.chosen_reward[index] - gradient.rejected_reward[index];
        sums.correct += if margin > 0.0 { 1.0 } else { 0.0 };
        sums.margin += margin;
        if let Some(reference) = &numbers.reference {
            let chosen = numbers.policy_chosen[index] - reference.chosen[index];
            let rejected = numbers.policy_rejected[index] - reference.rejected[index];
            sums.chosen_log_ratio += chosen;
            sums.rejected_log_ratio += rejected;
        }
    }
    sums.chosen_tokens += numbers.lengths.iter().flat_map(|lengths| &lengths.chosen).sum::<f64>();
    if let Some(carry) = &gradient.carry {
        *sums.carry.get_or_insert_default() += carry.iter().sum::<f64>();
    }
}

/// The mean loss that theory gives while policy ≡ reference, if it says.
fn step_zero(objective: &dyn Objective, numbers: &PairNumbers, device: &Device) -> Result<Option<f64>, TrainError> {
    let dtype = if device.supports_dtype(burn::tensor::DType::F64) {
        burn::tensor::DType::F64
    } else {
        burn::tensor::DType::F32
    };
    let loss = objective.step_zero(&numbers.to_tensors(device, dtype))?;
    Ok(loss.and_then(|loss| loss.into_data().iter::<f64>().next()))
}
