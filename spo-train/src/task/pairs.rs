//! A preference objective on the pairs of one dimension, against frozen policies.

use super::ahead::WholeBatch;
use super::front::{FrontRows, Weighing, weigh};
use super::{Ahead, DegreeTerm, PairInputs, StepAhead, StepTally, Task};
use crate::TrainError;
use crate::step::tape::{DivergenceGradients, LogpGradients, Scored, observe};
use burn::tensor::{DType, Device, Tensor};
use spo_core::logprob::divergence::{Head, token_kl};
use spo_core::logprob::weight::{desensitised, on_policy, token_collision};
use spo_core::pair::SampledLogps;
use spo_core::{CoreError, Objective, PairGradient, PairNumbers, Sides, differentiate};
use spo_data::{Dataset, Group, PackedBatch, PairRef, Units};
use spo_model::CausalLm;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

/// The pairs of a dimension with what is fixed about them.
#[derive(Debug)]
pub struct PreferenceTask<'a> {
    dataset: &'a Dataset,
    pairs: Vec<PairRef>,
    /// Its λ may move while it is trained.
    objective: RwLock<Arc<dyn Objective>>,
    inputs: PairInputs,
    degrees: Option<DegreeTerm>,
    device: Device,
    /// The dimensions that are weighed, where there are several.
    front: Option<FrontRows>,
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
        let objective = RwLock::new(objective);
        Ok(Self { dataset, pairs, objective, inputs, degrees: None, device, front: None })
    }

    /// With pairs of several dimensions, whose losses are weighed. The loss must be one of single pairs.
    #[must_use]
    pub fn with_front(self, front: FrontRows) -> Self {
        Self { front: Some(front), ..self }
    }

    /// With preference degrees, an entry for each pair, beside the objective's loss.
    #[must_use]
    pub fn with_degrees(self, degrees: DegreeTerm) -> Self {
        Self { degrees: Some(degrees), ..self }
    }

    fn objective(&self) -> Arc<dyn Objective> {
        self.objective.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers of each pair before its degrees: chosen, rejected and, where there is one, that of the reference.
    fn own_answers(&self) -> usize {
        if self.inputs.sampled.is_empty() { 2 } else { 3 }
    }

    /// The sequences of each of the rows of a batch.
    fn sequences<'b>(&self, rows: &[usize], batch: &'b PackedBatch) -> Vec<&'b [Range<usize>]> {
        let mut rest = batch.sequences.as_slice();
        let of_row = |row: &usize| {
            let degrees = self.degrees.as_ref().map_or(0, |degrees| degrees.rows.of(*row).len());
            rest.split_off(..self.own_answers() + degrees).expect("a batch has the answers of its rows")
        };
        rows.iter().map(of_row).collect()
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
        let sequences = self.sequences(rows, batch);
        let side = |answer: usize, f: &dyn Fn(usize, &Range<usize>) -> f64| -> Vec<f64> {
            rows.iter().zip(&sequences).map(|(&row, sequences)| f(row, &sequences[answer])).collect()
        };
        let sides = |f: &dyn Fn(usize, &Range<usize>) -> f64| Sides { chosen: side(0, f), rejected: side(1, f) };
        // Behind them may be those that a head reads.
        let predicting = |hidden: &Tensor<2>| hidden.clone().narrow(0, 0, scored.logps.len());
        let sum = |values: &[f32]| values.iter().map(|value| f64::from(*value)).sum::<f64>();
        for (answer, values) in [&mut numbers.policy_chosen, &mut numbers.policy_rejected].into_iter().enumerate() {
            *values = side(answer, &|row, tokens| {
                let weights = self.weights(row);
                let weighted = scored.logps[tokens.clone()].iter().zip(&weights[answer]);
                weighted.map(|(logp, weight)| f64::from(*logp) * weight).sum()
            });
        }
        if needs.on_policy {
            let collisions = host(token_collision(predicting(scored.hidden), scored.weight.clone(), scored.head))?;
            let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
            numbers.on_policy = Some(sides(&|_, tokens| {
                on_policy(&wide(&scored.logps[tokens.clone()]), &wide(&collisions[tokens.clone()]))
            }));
        }
        let mut head = None;
        if let Some(reference) = self.inputs.reference.as_ref().filter(|_| needs.sequence_kl) {
            let reference = (predicting(&reference.hidden(scored.inputs)), reference.head_weight());
            let policy = (predicting(scored.hidden), scored.weight.clone());
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

    /// The sum of losses that theory gives while policy ≡ reference, if it says: where pairs count differently, of each
    /// pair for itself.
    fn step_zero(&self, numbers: &PairNumbers, factors: &[f64]) -> Result<Option<f64>, TrainError> {
        let of = |numbers: &PairNumbers| step_zero(self.objective().as_ref(), numbers, &self.device);
        match &self.front {
            None => return Ok(of(numbers)?.map(|mean| mean * factors.len() as f64)),
            Some(FrontRows { weighing: Weighing::Drawn { fresh: false, .. }, .. }) => return Ok(None),
            Some(_) => {}
        }
        let weighed = |(row, factor): (usize, &f64)| Ok(of(&numbers.select(&[row]))?.map(|loss| loss * factor));
        factors.iter().enumerate().map(weighed).sum()
    }
}

impl Task for PreferenceTask<'_> {
    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn units(&self) -> Units {
        self.dataset.units(self.pairs.iter().map(|pair| pair.example))
    }

    fn group(&self, row: usize) -> Group<'_> {
        let pair = &self.pairs[row];
        let example = &self.dataset.examples[pair.example];
        let mut answers = vec![example.answers[pair.chosen].as_slice(), &example.answers[pair.rejected]];
        answers.extend(self.inputs.sampled.get(row).map(Vec::as_slice));
        answers.extend(self.degrees.iter().flat_map(|degrees| degrees.rows.of(row)).map(Vec::as_slice));
        Group { prompt: &example.prompt, answers }
    }

    fn answers(&self, row: usize) -> Vec<&[u32]> {
        let mut answers = self.group(row).answers;
        answers.truncate(self.own_answers());
        answers
    }

    fn pack(&self, _model: &CausalLm, _rows: &[usize], groups: &[Group]) -> PackedBatch {
        match &self.degrees {
            Some(degrees) => degrees.pack(groups, self.own_answers()),
            None => PackedBatch::new(groups),
        }
    }

    fn id(&self, row: usize) -> &str {
        &self.dataset.examples[self.pairs[row].example].id
    }

    fn front(&self) -> Option<&FrontRows> {
        self.front.as_ref()
    }

    fn weights(&self, done: u64) -> Option<Vec<f64>> {
        match self.front.as_ref()? {
            FrontRows { weighing: Weighing::Drawn { draws, .. }, dimensions, .. } => {
                Some(draws.at(done, dimensions.len()))
            }
            FrontRows { weighing: Weighing::Fixed(_), .. } => None,
        }
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
        if let Some(front) = &self.front {
            let weights = match &front.weighing {
                Weighing::Drawn { .. } => step.model.weights(),
                Weighing::Fixed(weights) => Some(weights.clone()),
            };
            let weights = weights.ok_or_else(|| TrainError::Objective {
                name: self.objective().name().into(),
                reason: "it weighs several dimensions, and the policy has no conditional adapter".into(),
            })?;
            return Ok(Some(Ahead::Weights(weights.into())));
        }
        if !self.objective().needs().whole_batch || step.batches.len() < 2 {
            return Ok(None);
        }
        let observed = step.team.deal(step.batches.len(), |index| {
            let rows: Vec<usize> = step.batches[index].iter().map(|&member| step.rows[member]).collect();
            let batch = PackedBatch::new(&rows.iter().map(|&row| self.group(row)).collect::<Vec<_>>());
            let (numbers, _) = observe(step.model, &batch, step.head, |scored| self.observe(&rows, &batch, scored))?;
            Ok::<_, TrainError>((rows, numbers))
        })?;
        let mut whole: Option<WholeBatch<PairNumbers>> = None;
        for (rows, numbers) in observed {
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
        let mut gradient = match &step.ahead {
            Some(Ahead::Pairs(whole)) => self.differentiate(&whole.numbers)?.select(&whole.places(rows)),
            _ => self.differentiate(&numbers)?,
        };
        let factors = match (&self.front, &step.ahead) {
            (Some(front), Some(Ahead::Weights(weights))) => front.factors(rows, weights),
            _ => vec![1.0; rows.len()],
        };
        if self.front.is_some() {
            weigh(&mut gradient, &factors);
        }
        tally(&numbers, &gradient, step);
        if step.step_zero.is_some() {
            let expected = self.step_zero(&numbers, &factors)?;
            step.step_zero = step.step_zero.zip(expected).map(|(total, expected)| total + expected);
        }
        let mut logp_gradients = vec![0.0; scored.logps.len()];
        let mut of_divergence = vec![0.0; if reference.is_some() { scored.logps.len() } else { 0 }];
        let all = self.sequences(rows, batch);
        for (index, (&row, sequences)) in rows.iter().zip(&all).enumerate() {
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
        let (mut values, mut head_only) = (vec![], false);
        if let Some(degrees) = &self.degrees {
            values = degrees.add((rows, self.own_answers()), &all, scored, &mut logp_gradients, step);
            head_only = degrees.head_only();
        }
        Ok(LogpGradients { logps: logp_gradients, values, head_only, divergence })
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
