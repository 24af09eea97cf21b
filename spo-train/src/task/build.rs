//! The task of a phase: its rows with what frozen policies say of them.

use crate::TrainError;
use crate::policy::embeddings::Embeddings;
use crate::policy::logps::PolicyLogps;
use crate::policy::sampling::Samples;
use crate::task::contexts::ContextPool;
use crate::task::data::{Rows, TaskData, strength};
use crate::task::steered::SteeredTask;
use crate::task::{
    DegreeTerm, Judged, ListTask, PairInputs, PreferenceTask, RewardTask, Sampled, ScoredTask, SupervisedTask, Task,
    UnpairedTask,
};
use burn::tensor::Device;
use spo_core::objective::{ListObjective, UnpairedObjective};
use spo_core::{Objective, Sides};
use spo_data::{AnswerRef, Dataset, Example, PairRef};
use spo_model::CausalLm;
use std::sync::Arc;

/// What a task is made of, beside its data.
pub(crate) struct Frozen<'a> {
    /// Names of `π_0 … π_{n−1}`.
    pub names: &'a [String],
    /// Their log-probs, in the same order; none for a warm-up, which needs none.
    pub history: &'a [&'a PolicyLogps],
    /// Answers sampled from `π_{n−1}`, where the arm needs them.
    pub samples: Option<Samples>,
    /// `π_{n−1}` itself, where the arm needs it.
    pub reference: Option<CausalLm>,
    /// What users are told apart by, in a run of several.
    pub contexts: Option<Embedded>,
    /// λ of earlier rounds that was found in training.
    pub lambdas: Lambdas,
    /// Who scores what the policy writes, where the loss is of that.
    pub judged: Option<Judged>,
}

/// The embeddings of a run's answers.
#[derive(Debug, Clone)]
pub(crate) struct Embedded {
    pub embeddings: Arc<Embeddings>,
    /// Numbers of each.
    pub width: usize,
    /// Seed of the run.
    pub seed: u64,
}

/// λ of rounds, one for each round before, where the plan does not have it because the run found it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lambdas(pub Vec<(usize, Vec<f64>)>);

impl Lambdas {
    /// Those of the rounds up to this index.
    pub fn until(&self, round: usize) -> Self {
        Self(self.0.iter().filter(|(of, _)| *of <= round).cloned().collect())
    }

    /// An objective with these λ in place of the plan's.
    pub fn held(&self, objective: Arc<dyn Objective>) -> Arc<dyn Objective> {
        self.0.iter().fold(objective, |objective, (round, lambda)| {
            objective.with_lambda(*round, lambda).map_or(objective, Arc::from)
        })
    }
}

impl<'a> Frozen<'a> {
    /// What the round of this index had, of all policies that a later one comes from: those before it.
    pub fn before(round: usize, names: &'a [String], history: &'a [&'a PolicyLogps], lambdas: &Lambdas) -> Self {
        let (names, history) = (&names[..=round], &history[..=round]);
        let lambdas = lambdas.until(round);
        Self { names, history, samples: None, reference: None, contexts: None, lambdas, judged: None }
    }

    /// The log-prob of an answer under `π_{n−1}`.
    fn logp(&self, example: &Example, answer: &[u32]) -> Result<f64, TrainError> {
        let reference = self.history.last().expect("every round has a policy before it");
        reference.logp(&example.id, &example.prompt, answer)
    }
}

impl TaskData {
    /// The task of a phase; numbers of rows that are not visited are not looked up.
    ///
    /// # Errors
    /// Log-probs that are not in the cache.
    pub fn task<'a>(&'a self, frozen: Frozen, device: Device) -> Result<Box<dyn Task + 'a>, TrainError> {
        match &self.rows {
            Rows::Supervised(rows) => Ok(Box::new(SupervisedTask::of(&self.dataset, rows.clone()))),
            Rows::Pairs(pairs, objective) => self.of_pairs(pairs, objective, frozen, device),
            Rows::Answers(answers, objective) => self.of_answers(answers, objective, &frozen, device),
            Rows::Lists(lists, objective) => self.of_lists(lists, objective, &frozen, device),
            Rows::Rewards(pairs, objective) => {
                let task = RewardTask::new(&self.dataset, pairs.clone(), objective.clone(), device);
                self.steered(Box::new(task), frozen.contexts)
            }
            Rows::Prompts(prompts, held_out) => {
                let judged = frozen.judged.expect("a round of scores has a scorer");
                Ok(Box::new(ScoredTask::new(prompts, &self.dimension, *held_out, judged)))
            }
        }
    }

    fn of_pairs<'a>(
        &'a self,
        pairs: &[PairRef],
        objective: &Arc<dyn Objective>,
        frozen: Frozen,
        device: Device,
    ) -> Result<Box<dyn Task + 'a>, TrainError> {
        let needs = objective.needs();
        let of = |logps: &&PolicyLogps| self.sides(logps, pairs, needs.length_desensitising);
        let earlier = frozen.history.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        let mixture = self.mixture(frozen.names)?.into_iter().map(|index| earlier[index].clone()).collect();
        let mut inputs = PairInputs::new(&self.dataset, pairs, earlier);
        inputs.numbers.length_desensitised = needs.length_desensitising;
        inputs.numbers.mixture = mixture;
        inputs.numbers.strengths = needs.strengths.then(|| self.strengths(pairs));
        inputs.numbers.safety = needs.safety.then(|| safety(&self.dataset, pairs));
        if let Some(samples) = &frozen.samples {
            inputs = inputs.with_sampled(self.sampled(&frozen, samples)?);
        }
        inputs.reference = frozen.reference;
        let objective = frozen.lambdas.held(objective.clone());
        let mut task = PreferenceTask::new(&self.dataset, pairs.to_vec(), objective, inputs, device)?;
        if let Some(front) = &self.front {
            task = task.with_front(front.clone());
        }
        if let Some(term) = self.degree_term(pairs, frozen.history)? {
            task = task.with_degrees(term);
        }
        self.steered(Box::new(task), frozen.contexts)
    }

    /// The task as it is in a run of several users.
    fn steered<'a>(
        &'a self,
        own: Box<dyn Task + 'a>,
        contexts: Option<Embedded>,
    ) -> Result<Box<dyn Task + 'a>, TrainError> {
        let (Some((users, most)), Some(contexts)) = (&self.users, contexts) else { return Ok(own) };
        let pool = ContextPool::new(&self.dataset, users.clone(), &contexts.embeddings, contexts.width)?;
        Ok(Box::new(SteeredTask { own, pool, most: *most, seed: contexts.seed }))
    }

    /// What preference degrees add to the loss on pairs.
    fn degree_term(&self, pairs: &[PairRef], history: &[&PolicyLogps]) -> Result<Option<DegreeTerm>, TrainError> {
        let Some((rows, beta)) = &self.degrees else { return Ok(None) };
        let mut reference = vec![];
        if !rows.degrees.loss.classifies() {
            let policy = history.last().expect("every round has a policy before it");
            for (row, pair) in pairs.iter().enumerate() {
                let example = self.example(row);
                let logp = |answer: &[u32]| policy.logp(&example.id, &example.prompt, answer);
                reference.push(match rows.of(row) {
                    [last] if self.visits[row] => [logp(&example.answers[pair.chosen])?, logp(last)?],
                    _ => [f64::NAN; 2],
                });
            }
        }
        Ok(Some(DegreeTerm { rows: rows.as_ref().clone(), beta: *beta, reference }))
    }

    fn of_answers<'a>(
        &'a self,
        answers: &[AnswerRef],
        objective: &Arc<dyn UnpairedObjective>,
        frozen: &Frozen,
        device: Device,
    ) -> Result<Box<dyn Task + 'a>, TrainError> {
        let own =
            |(row, answer): (usize, &AnswerRef)| self.look_up(frozen, row, &self.example(row).answers[answer.answer]);
        let own = answers.iter().enumerate().map(own).collect::<Result<Vec<_>, _>>()?;
        let mut mismatched = self.partners();
        if let Some(mismatched) = &mut mismatched {
            for row in 0..answers.len() {
                let (_, answer) = mismatched.row(&self.dataset, answers, row);
                let logp = self.look_up(frozen, row, answer)?;
                mismatched.reference.push(logp);
            }
        }
        let objective = objective.clone();
        let task = UnpairedTask::new(&self.dataset, answers.to_vec(), objective, own, mismatched, device)?;
        Ok(Box::new(task))
    }

    fn of_lists<'a>(
        &'a self,
        lists: &[usize],
        objective: &Arc<dyn ListObjective>,
        frozen: &Frozen,
        device: Device,
    ) -> Result<Box<dyn Task + 'a>, TrainError> {
        let of = |row: usize| {
            let answers = self.example(row).answers.iter();
            answers.map(|answer| self.look_up(frozen, row, answer)).collect::<Result<Vec<_>, _>>()
        };
        let logps = (0..lists.len()).map(of).collect::<Result<Vec<_>, _>>()?;
        Ok(Box::new(ListTask::new(&self.dataset, &self.dimension, objective.clone(), logps, device)))
    }

    /// The log-prob of an answer to a row's prompt under the reference; NaN where the row is not visited.
    fn look_up(&self, frozen: &Frozen, row: usize, answer: &[u32]) -> Result<f64, TrainError> {
        if self.visits[row] { frozen.logp(self.example(row), answer) } else { Ok(f64::NAN) }
    }

    /// The answer that the reference drew to each pair's prompt.
    fn sampled(&self, frozen: &Frozen, samples: &Samples) -> Result<Sampled, TrainError> {
        let mut sampled = Sampled::default();
        for row in 0..self.len() {
            let answer = samples.get(&self.example(row).prompt).unwrap_or_default();
            sampled.logps.push(self.look_up(frozen, row, answer)?);
            sampled.answers.push(answer.to_vec());
        }
        Ok(sampled)
    }

    /// By how much the chosen answer of each pair is better.
    fn strengths(&self, pairs: &[PairRef]) -> Vec<f64> {
        let of = |(row, pair)| strength(&self.dataset, self.dimension_of(row), pair);
        pairs.iter().enumerate().map(of).collect()
    }

    /// A policy's log-probs of pairs. With `alpha` the tokens beyond the pair's shorter answer count that much: the sum
    /// up to there is the log-prob of the shortened answer.
    fn sides(&self, logps: &PolicyLogps, pairs: &[PairRef], alpha: Option<f64>) -> Result<Sides<Vec<f64>>, TrainError> {
        let mut sides = logps.sides(&self.dataset, pairs, |row| self.visits[row])?;
        let Some(alpha) = alpha else { return Ok(sides) };
        for row in self.visited() {
            let (pair, example) = (&pairs[row], self.example(row));
            let [chosen, rejected] = [pair.chosen, pair.rejected].map(|answer| example.answers[answer].as_slice());
            for (own, other, sum) in
                [(chosen, rejected, &mut sides.chosen[row]), (rejected, chosen, &mut sides.rejected[row])]
            {
                if own.len() > other.len() {
                    let short = logps.logp(&example.id, &example.prompt, &own[..other.len()])?;
                    *sum = short + alpha * (*sum - short);
                }
            }
        }
        Ok(sides)
    }
}

/// Whether each answer is safe: 1 or 0.
fn safety(dataset: &Dataset, pairs: &[PairRef]) -> Sides<Vec<f64>> {
    let safe = |pair: &PairRef, answer: usize| {
        dataset.examples[pair.example].safe.get(answer).map_or(f64::NAN, |safe| f64::from(*safe))
    };
    Sides {
        chosen: pairs.iter().map(|pair| safe(pair, pair.chosen)).collect(),
        rejected: pairs.iter().map(|pair| safe(pair, pair.rejected)).collect(),
    }
}
