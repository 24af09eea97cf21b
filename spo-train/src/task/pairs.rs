//! A preference objective on the pairs of one dimension, against frozen policies.

use super::ahead::WholeBatch;
use super::{Ahead, PairInputs, StepAhead, StepTally, Task};
use crate::TrainError;
use crate::step::tape::{DivergenceGradients, LogpGradients, Scored, observe};
use burn::tensor::{DType, Device, Tensor};
use spo_core::logprob::divergence::{Head, token_kl};
use spo_core::logprob::weight::{desensitised, on_policy, token_collision};
use spo_core::pair::SampledLogps;
use spo_core::{CoreError, Objective, PairGradient, PairNumbers, Sides, differentiate};
use spo_data::{Dataset, Group, PackedBatch, PairRef};
use std::sync::{Arc, PoisonError, RwLock};

/// The pairs of a dimension with what is fixed about them.
#[derive(Debug)]
pub struct PreferenceTask<'a> {
    dataset: &'a Dataset,
    pairs: Vec<PairRef>,
    /// Its λ may move while it is trained.
    objective: RwLock<Arc<dyn Objective>>,
    inputs: PairInputs,
    device: Device,
}

impl<'a> PreferenceTask<'a> {
    /// A task over `pairs`; `inputs` hold an entry for each of them. Pair numbers are computed on `device`.
    ///
    /// # Errors
    /// The objective needs something that `inputs` lack.
    pub fn new(
        dataset: &'a Dataset,
        pairs: Vec<PairRef>,
        objective: impl Into<Arc<dyn Objective>>,
        inputs: PairInputs,
        device: Device,
    ) -> Result<Self, TrainError> {
        let objective = objective.into();
        let mut first = inputs.numbers.select(if pairs.is_empty() { &[] } else { &[0] });
        // These two come with every micro-batch.
        let live = || Some(Sides { chosen: vec![0.0], rejected: vec![0.0] });
        first.on_policy = live();
        first.sequence_kl = inputs.reference.as_ref().and_then(|_| live());
        // Missing inputs show now, not at the first step.
        objective.needs().check(objective.name(), &first)?;
        Ok(Self { dataset, pairs, objective: RwLock::new(objective), inputs, device })
    }

    fn objective(&self) -> Arc<dyn Objective> {
        self.objective.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers of each pair in a batch: chosen, rejected and, where there is one, that of the reference.
    fn answers(&self) -> usize {
        if self.inputs.sampled.is_empty() { 2 } else { 3 }
    }

    /// The weight of each token in its pair's sums, chosen and rejected.
    fn weights(&self, row: usize) -> [Vec<f64>; 2] {
        let pair = &self.pairs[row];
        let answers = &self.dataset.examples[pair.example].answers;
        let (chosen, rejected) = (answers[pair.chosen].len(), answers[pair.rejected].len());
        match self.objective().needs().length_desensitising {
            Some(alpha) => [(chosen, rejected), (rejected, chosen)]
                .map(|(own, other)| desensitised(own, other, alpha).collect::<Vec<f64>>()),
            None => [vec![1.0; chosen], vec![1.0; rejected]],
        }
    }

    /// The rows' numbers with what the policy says of them, and the reference's head where it was asked.
    fn observe(
        &self,
        rows: &[usize],
        batch: &PackedBatch,
        scored: &Scored,
    ) -> Result<(PairNumbers, Option<Head>), TrainError> {
        let needs = self.objective().needs();
        let mut numbers = self.inputs.numbers.select(rows);
        let sequences = || batch.sequences.chunks(self.answers());
        let side = |answer: usize, f: &dyn Fn(usize, &std::ops::Range<usize>) -> f64| -> Vec<f64> {
            rows.iter().zip(sequences()).map(|(&row, sequences)| f(row, &sequences[answer])).collect()
        };
        let sides =
            |f: &dyn Fn(usize, &std::ops::Range<usize>) -> f64| Sides { chosen: side(0, f), rejected: side(1, f) };
        let sum = |values: &[f32]| values.iter().map(|value| f64::from(*value)).sum::<f64>();
        for (answer, values) in [&mut numbers.policy_chosen, &mut numbers.policy_rejected].into_iter().enumerate() {
            *values = side(answer, &|row, tokens| {
                let weights = self.weights(row);
                let weighted = scored.logps[tokens.clone()].iter().zip(&weights[answer]);
                weighted.map(|(logp, weight)| f64::from(*logp) * weight).sum()
            });
        }
        if needs.on_policy {
            let collisions = host(token_collision(scored.hidden.clone(), scored.weight.clone(), scored.head))?;
            let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
            numbers.on_policy = Some(sides(&|_, tokens| {
                on_policy(&wide(&scored.logps[tokens.clone()]), &wide(&collisions[tokens.clone()]))
            }));
        }
        let mut head = None;
        if let Some(reference) = self.inputs.reference.as_ref().filter(|_| needs.sequence_kl) {
            let reference = (reference.hidden(scored.inputs), reference.head_weight());
            let policy = (scored.hidden.clone(), scored.weight.clone());
            let kl = host(token_kl(policy, reference.clone(), scored.head))?;
            numbers.sequence_kl = Some(sides(&|_, tokens| sum(&kl[tokens.clone()])));
            head = Some(reference);
        }
        if let Some(SampledLogps { policy, .. }) = &mut numbers.sampled {
            *policy = side(2, &|_, tokens| sum(&scored.logps[tokens.clone()]));
        }
        Ok((numbers, head))
    }

    fn differentiate(&self, numbers: &PairNumbers) -> Result<PairGradient, TrainError> {
        Ok(differentiate(self.objective().as_ref(), numbers, &self.device)?)
    }
}

impl Task for PreferenceTask<'_> {
    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn group(&self, row: usize) -> Group<'_> {
        let pair = &self.pairs[row];
        let example = &self.dataset.examples[pair.example];
        let mut answers = vec![example.answers[pair.chosen].as_slice(), &example.answers[pair.rejected]];
        answers.extend(self.inputs.sampled.get(row).map(Vec::as_slice));
        Group { prompt: &example.prompt, answers }
    }

    fn id(&self, row: usize) -> &str {
        &self.dataset.examples[self.pairs[row].example].id
    }

    fn margin_offset(&self, rows: &[usize]) -> Result<Option<Vec<f64>>, TrainError> {
        let mut numbers = self.inputs.numbers.select(rows);
        let Some(reference) = numbers.reference.clone().filter(|_| numbers.earlier.len() > 1) else { return Ok(None) };
        (numbers.policy_chosen, numbers.policy_rejected) = (reference.chosen, reference.rejected);
        let zeros = || Some(Sides { chosen: vec![0.0; rows.len()], rejected: vec![0.0; rows.len()] });
        let needs = self.objective().needs();
        numbers.on_policy = needs.on_policy.then(zeros).flatten();
        numbers.sequence_kl = needs.sequence_kl.then(zeros).flatten();
        Ok(differentiate(self.objective().as_ref(), &numbers, &self.device)?.margin_offset)
    }

    fn hold(&self, lambda: &[f64]) {
        if let Some(held) = self.objective().with_lambda(lambda.len(), lambda) {
            *self.objective.write().unwrap_or_else(PoisonError::into_inner) = held.into();
        }
    }

    fn look_ahead(&self, step: &StepAhead) -> Result<Option<Ahead>, TrainError> {
        if !self.objective().needs().whole_batch || step.batches.len() < 2 {
            return Ok(None);
        }
        let mut whole: Option<WholeBatch<PairNumbers>> = None;
        for members in step.batches {
            let rows: Vec<usize> = members.iter().map(|&member| step.rows[member]).collect();
            let batch = PackedBatch::new(&rows.iter().map(|&row| self.group(row)).collect::<Vec<_>>());
            let (numbers, _) = observe(step.model, &batch, step.head, |scored| self.observe(&rows, &batch, scored))?;
            match &mut whole {
                Some(whole) => {
                    whole.rows.extend(rows);
                    whole.numbers.append(&numbers)?;
                }
                None => whole = Some(WholeBatch { rows, numbers }),
            }
        }
        Ok(whole.map(|whole| Ahead::Pairs(Arc::new(whole))))
    }

    fn logp_gradients(
        &self,
        rows: &[usize],
        batch: &PackedBatch,
        scored: &Scored,
        step: &mut StepTally,
    ) -> Result<LogpGradients, TrainError> {
        let (numbers, reference) = self.observe(rows, batch, scored)?;
        let gradient = match &step.ahead {
            Some(Ahead::Pairs(whole)) => self.differentiate(&whole.numbers)?.select(&whole.places(rows)),
            _ => self.differentiate(&numbers)?,
        };
        tally(&numbers, &gradient, step);
        if let Some(total) = &mut step.step_zero {
            match step_zero(self.objective().as_ref(), &numbers, &self.device)? {
                Some(mean) => *total += mean * rows.len() as f64,
                None => step.step_zero = None,
            }
        }
        let mut logp_gradients = vec![0.0; scored.logps.len()];
        let mut of_divergence = vec![0.0; if reference.is_some() { scored.logps.len() } else { 0 }];
        for (index, (&row, sequences)) in rows.iter().zip(batch.sequences.chunks(self.answers())).enumerate() {
            let sides = [&gradient.d_chosen, &gradient.d_rejected];
            for ((tokens, weights), gradients) in sequences.iter().zip(self.weights(row)).zip(sides) {
                for (of_token, weight) in logp_gradients[tokens.clone()].iter_mut().zip(weights) {
                    *of_token = (weight * gradients[index] / step.weight) as f32;
                }
            }
            if let (Some(tokens), Some(gradients)) = (sequences.get(2), &gradient.d_sampled) {
                logp_gradients[tokens.clone()].fill((gradients[index] / step.weight) as f32);
            }
            if let (false, Some((chosen, rejected))) = (of_divergence.is_empty(), &gradient.d_sequence_kl) {
                for (tokens, gradients) in sequences.iter().zip([chosen, rejected]) {
                    of_divergence[tokens.clone()].fill((gradients[index] / step.weight) as f32);
                }
            }
        }
        let divergence = reference.map(|reference| DivergenceGradients { reference, rows: of_divergence });
        Ok(LogpGradients { logps: logp_gradients, values: vec![], divergence })
    }
}

/// One number per row of a batch.
fn host(values: Tensor<1>) -> Result<Vec<f32>, TrainError> {
    values
        .try_into_vec_as::<f32>()
        .map_err(|error| CoreError::Device { what: "numbers of tokens", reason: error.to_string() }.into())
}

fn tally(numbers: &PairNumbers, gradient: &PairGradient, step: &mut StepTally) {
    step.loss += gradient.losses.iter().sum::<f64>();
    let sums = step.preference.get_or_insert_default();
    for index in 0..numbers.len() {
        let ratio = |policy: &[f64], pick: fn(&Sides<Vec<f64>>) -> &Vec<f64>| {
            numbers.reference.as_ref().map_or(0.0, |reference| policy[index] - pick(reference)[index])
        };
        let chosen = ratio(&numbers.policy_chosen, |sides| &sides.chosen);
        let rejected = ratio(&numbers.policy_rejected, |sides| &sides.rejected);
        sums.add(Some((gradient.chosen_reward[index], chosen)), Some((gradient.rejected_reward[index], rejected)));
    }
    sums.chosen_tokens += numbers.lengths.iter().flat_map(|lengths| &lengths.chosen).sum::<f64>();
    if let Some(margin_offset) = &gradient.margin_offset {
        *sums.margin_offset.get_or_insert_default() += margin_offset.iter().sum::<f64>();
    }
    if let Some(kl) = &numbers.sequence_kl {
        *sums.kl.get_or_insert_default() += kl.chosen.iter().chain(&kl.rejected).sum::<f64>() / 2.0;
    }
}

/// The mean loss that theory gives while policy ≡ reference, if it says.
fn step_zero(objective: &dyn Objective, numbers: &PairNumbers, device: &Device) -> Result<Option<f64>, TrainError> {
    let dtype = if device.supports_dtype(DType::F64) { DType::F64 } else { DType::F32 };
    let loss = objective.step_zero(&numbers.to_tensors(device, dtype))?;
    Ok(loss.and_then(|loss| loss.into_data().iter::<f64>().next()))
}
