//! Preference degrees beside a loss on pairs: the chosen answer with more and more of its key phrases removed, and the head
//! that tells how much is missing.
//!
//! Every pair has all its degrees in every batch that it is in: the head sees each as often as any other, and cannot tell a
//! degree from the prompt.

use super::StepTally;
use super::data::answered;
use crate::TrainError;
use crate::step::tape::Scored;
use rayon::prelude::*;
use spo_core::objective::{DegreeAnswers, DegreeLoss, Degrees, cross_entropy, logistic};
use spo_data::degrees::{Removal, degraded};
use spo_data::{DataError, Dataset, Example, Group, PackedBatch, PairRef, Tokenizer, row_hash};
use spo_model::reward::Pooling;
use std::ops::Range;

/// What an answer may stand behind when it is encoded again: of these the first that gives the same tokens.
const BEFORE: [&str; 3] = ["", " ", "\n"];

/// The chosen answers of pairs at the degrees that their loss takes.
#[derive(Debug, Clone)]
pub struct DegradedRows {
    /// The loss.
    pub degrees: Degrees,
    /// For each pair the answers of degree 1 and on, or the last one alone where that is all the loss takes; none where the
    /// answer has too few key phrases or would not be encoded as it was.
    answers: Vec<Vec<Vec<u32>>>,
}

impl DegradedRows {
    /// The degrees of the chosen answers of `pairs`, in at most `limit` tokens with the prompt.
    ///
    /// # Errors
    /// An answer cannot be decoded or encoded.
    pub fn new(
        dataset: &Dataset,
        pairs: &[PairRef],
        degrees: Degrees,
        tokenizer: &Tokenizer,
        limit: usize,
    ) -> Result<Self, TrainError> {
        let of_pair = |pair: &PairRef| {
            let example = &dataset.examples[pair.example];
            let answer = &example.answers[pair.chosen];
            let mut found = rewritten(tokenizer, &example.prompt, answer, degrees)?;
            let most = limit.saturating_sub(example.prompt.len());
            if found.iter().any(|answer| answer.is_empty() || answer.len() > most) {
                found.clear();
            }
            if !degrees.loss.classifies() {
                found.drain(..found.len().saturating_sub(1));
            }
            Ok::<_, TrainError>(found)
        };
        Ok(Self { degrees, answers: pairs.par_iter().map(of_pair).collect::<Result<_, _>>()? })
    }

    /// What a pair has beside its own answers.
    pub fn of(&self, row: usize) -> &[Vec<u32>] {
        &self.answers[row]
    }

    /// Pairs without degrees.
    pub fn left_out(&self) -> usize {
        self.answers.iter().filter(|answers| answers.is_empty()).count()
    }

    /// Length and degree of every classified answer of these pairs, which are of `dataset`.
    pub fn lengths<'a>(&'a self, dataset: &'a Dataset, pairs: &'a [PairRef]) -> impl Iterator<Item = (usize, usize)> {
        let with = self.answers.iter().zip(pairs).filter(|(answers, _)| !answers.is_empty());
        with.flat_map(|(answers, pair)| {
            let own = dataset.examples[pair.example].answers[pair.chosen].len();
            std::iter::once(own).chain(answers.iter().map(Vec::len)).zip(0..)
        })
    }

    /// The last degree of a pair for a policy to score, where the loss compares the answer with it.
    pub(super) fn compared(&self, row: usize, example: &Example) -> Option<Example> {
        let last = self.answers[row].last().filter(|_| !self.degrees.loss.classifies())?;
        Some(answered(&example.id, &example.prompt, last))
    }
}

/// The answer of degree 1 and on; nothing where there are no such answers.
fn rewritten(
    tokenizer: &Tokenizer,
    prompt: &[u32],
    answer: &[u32],
    degrees: Degrees,
) -> Result<Vec<Vec<u32>>, DataError> {
    let end = answer.iter().position(|id| tokenizer.terminators().contains(id)).unwrap_or(answer.len());
    let (written, ends) = answer.split_at(end);
    let text = tokenizer.decode(written)?;
    let removal = match degrees.answers {
        DegreeAnswers::KeyPhrases => Removal::KeyPhrases,
        DegreeAnswers::RandomWords => Removal::RandomWords,
        DegreeAnswers::Replaced => Removal::Replaced,
    };
    let seed = u64::from_le_bytes(row_hash(prompt, answer)[..8].try_into().expect("a hash has more than eight bytes"));
    let Some(texts) = degraded(&text, degrees.count, removal, seed) else { return Ok(vec![]) };
    for before in BEFORE {
        if encode(tokenizer, before, &text)?.as_deref() == Some(written) {
            let mut found = vec![];
            for text in texts {
                let Some(written) = encode(tokenizer, before, &text)? else { return Ok(vec![]) };
                found.push([&written, ends].concat());
            }
            return Ok(found);
        }
    }
    Ok(vec![])
}

/// The tokens of a text behind another one, where they begin after those of the other one.
fn encode(tokenizer: &Tokenizer, before: &str, text: &str) -> Result<Option<Vec<u32>>, DataError> {
    let all = tokenizer.encode(&format!("{before}{text}"), false)?;
    let own = if before.is_empty() { vec![] } else { tokenizer.encode(before, false)? };
    Ok(all.strip_prefix(own.as_slice()).map(<[u32]>::to_vec))
}

/// What preference degrees add to a loss on pairs.
#[derive(Debug, Clone)]
pub struct DegreeTerm {
    /// The answers.
    pub rows: DegradedRows,
    /// β of the comparison with the last degree; not used by a head.
    pub beta: f64,
    /// For each pair `log π_ref` of the chosen answer and of its last degree, where they are compared.
    pub reference: Vec<[f64; 2]>,
}

impl DegreeTerm {
    fn settings(&self) -> &Degrees {
        &self.rows.degrees
    }

    /// The groups with every answer's last token for the head; no token of a degree is predicted. `own` are the answers of
    /// a pair before its degrees.
    pub(super) fn pack(&self, groups: &[Group], own: usize) -> PackedBatch {
        if !self.settings().loss.classifies() {
            return PackedBatch::new(groups);
        }
        let row = |prompt: &[u32], (index, answer): (usize, &[u32])| {
            Pooling::Last.row(prompt, answer, if index < own { 0 } else { answer.len() })
        };
        let of_group = |group: &Group| -> Vec<_> {
            group.answers.iter().copied().enumerate().map(|answer| row(group.prompt, answer)).collect()
        };
        PackedBatch::with_values(groups, &groups.iter().flat_map(of_group).collect::<Vec<_>>())
    }

    /// Adds the loss of a micro-batch to the sums and its gradient to that of the log-probs; returns that of the head's
    /// scores. `own` as in [`pack`](Self::pack), `sequences` those of `rows`.
    pub(super) fn add(
        &self,
        (rows, own): (&[usize], usize),
        sequences: &[&[Range<usize>]],
        scored: &Scored,
        logps: &mut [f32],
        step: &mut StepTally,
    ) -> Vec<f32> {
        let Degrees { weight, count, loss, .. } = *self.settings();
        let known = if loss.classifies() { (count as f64).ln() } else { std::f64::consts::LN_2 };
        let with = rows.iter().filter(|row| !self.rows.of(**row).is_empty()).count();
        if let Some(total) = &mut step.step_zero {
            *total += weight * known * with as f64;
        }
        if loss.classifies() {
            return self.classify(rows, own, scored, step);
        }
        for (&row, sequences) in rows.iter().zip(sequences) {
            if let [last] = &sequences[own..] {
                self.compare(row, [sequences[0].clone(), last.clone()], scored, logps, step);
            }
        }
        vec![]
    }

    fn classify(&self, rows: &[usize], own: usize, scored: &Scored, step: &mut StepTally) -> Vec<f32> {
        let Degrees { weight, count, .. } = *self.settings();
        let (mut gradients, mut first) = (vec![0.0; scored.values.len()], 0);
        let share = weight / count as f64;
        for &row in rows {
            let more = self.rows.of(row).len();
            for degree in 0..if more > 0 { count } else { 0 } {
                let answer = first + if degree == 0 { 0 } else { own - 1 + degree };
                let labels = answer * count..(answer + 1) * count;
                let logits: Vec<f64> = scored.values[labels.clone()].iter().map(|value| f64::from(*value)).collect();
                let (loss, gradient) = cross_entropy(&logits, degree);
                step.loss += share * loss;
                let tally = step.degrees.get_or_insert_default();
                tally.answers += 1.0;
                tally.loss += loss;
                let named = (1..count).fold(0, |best, label| if logits[label] > logits[best] { label } else { best });
                tally.correct += f64::from(u8::from(named == degree));
                for (sum, derivative) in gradients[labels].iter_mut().zip(gradient) {
                    *sum = (share * derivative / step.weight) as f32;
                }
            }
            first += own + more;
        }
        gradients
    }

    /// DPO of the chosen answer against its last degree.
    fn compare(
        &self,
        row: usize,
        sequences: [Range<usize>; 2],
        scored: &Scored,
        logps: &mut [f32],
        step: &mut StepTally,
    ) {
        let sum = |tokens: &Range<usize>| scored.logps[tokens.clone()].iter().map(|logp| f64::from(*logp)).sum::<f64>();
        let [chosen, last] = [0, 1].map(|side: usize| sum(&sequences[side]) - self.reference[row][side]);
        let weight = self.settings().weight;
        let (loss, derivative) = logistic(self.beta * (chosen - last));
        step.loss += weight * loss;
        let gradient = weight * derivative * self.beta / step.weight;
        for (tokens, gradient) in sequences.into_iter().zip([gradient, -gradient]) {
            logps[tokens].iter_mut().for_each(|sum| *sum += gradient as f32);
        }
    }

    /// Whether the head's loss says nothing to the policy.
    pub(super) fn head_only(&self) -> bool {
        self.settings().loss == DegreeLoss::HeadOnly
    }
}
