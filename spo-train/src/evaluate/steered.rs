//! A policy for many users on held-out pairs: each pair's user is told by other held-out pairs of the user, none of which
//! has the pair's prompt.

use crate::TrainError;
use crate::config::SteeringPlan;
use crate::events::reporter::Reporter;
use crate::policy::logps::PolicyLogps;
use crate::task::build::Embedded;
use crate::task::contexts::{ContextPool, Labels, UserPairs};
use spo_core::logprob::HeadOptions;
use spo_data::{Dataset, Group, PackedBatch, RowHash, micro_batches};
use spo_eval::{Bootstrap, DimensionScore, OpposedPair, PairScore, Steer, SteerArm, score_dimension, steer};
use spo_model::CausalLm;
use spo_model::decoder::PackedInputs;
use spo_model::lora::mix;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Most pairs that are scored together.
const CHUNK: usize = 256;
/// Micro-batches of a process between two checks of the stop flag.
const WAVE: usize = 8;

/// What a policy is told of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Pairs of the user.
    pub contexts: usize,
    pub labels: Labels,
}

impl Asked {
    /// Each number of contexts with their own labels, and but for 0 with shuffled and with swapped ones.
    pub fn all(contexts: &[usize]) -> Vec<Self> {
        let kinds = |contexts: usize| {
            let kinds = [Labels::Own, Labels::Shuffled, Labels::Swapped];
            let kinds = if contexts == 0 { &kinds[..1] } else { &kinds };
            kinds.iter().map(move |labels| Self { contexts, labels: *labels }).collect::<Vec<_>>()
        };
        contexts.iter().flat_map(|count| kinds(*count)).collect()
    }

    /// In words, as reports have it.
    pub fn setting(self) -> String {
        let contexts = if self.contexts == 1 { "1 context".into() } else { format!("{} contexts", self.contexts) };
        match self.labels {
            Labels::Own => contexts,
            Labels::Shuffled => format!("{contexts}, shuffled labels"),
            Labels::Swapped => format!("{contexts}, swapped labels"),
        }
    }

    fn arm(self) -> SteerArm {
        match self.labels {
            Labels::Shuffled => SteerArm::ShuffledLabels,
            Labels::Own if self.contexts == 0 => SteerArm::Unconditioned,
            Labels::Own | Labels::Swapped => SteerArm::Conditioned,
        }
    }
}

/// Held-out pairs of all users with their margins under `π_0`, which are 0 where rewards are compared.
pub(crate) struct SteeredSet<'a> {
    dataset: &'a Dataset,
    pub pool: ContextPool,
    /// `Δ log π_0` of each pair.
    start: Vec<f64>,
    seed: u64,
}

impl<'a> SteeredSet<'a> {
    /// The pairs of a set; `start` are the log-probs of `π_0`, `None` for a reward model.
    ///
    /// # Errors
    /// Rows that name no user, log-probs or embeddings that are not there.
    pub fn new(
        dataset: &'a Arc<Dataset>,
        dimension: &str,
        plan: &SteeringPlan,
        embedded: &Embedded,
        start: Option<&PolicyLogps>,
    ) -> Result<Self, TrainError> {
        let users = UserPairs::of(dataset, dimension, plan)?;
        let margin = |pair: &spo_data::PairRef| {
            let Some(start) = start else { return Ok(0.0) };
            let example = &dataset.examples[pair.example];
            let logp = |answer: usize| start.logp(&example.id, &example.prompt, &example.answers[answer]);
            Ok::<_, TrainError>(logp(pair.chosen)? - logp(pair.rejected)?)
        };
        let start = users.pairs.iter().map(margin).collect::<Result<_, _>>()?;
        let pool = ContextPool::new(dataset, users, &embedded.embeddings, embedded.width)?;
        Ok(Self { dataset, pool, start, seed: embedded.seed })
    }

    /// `Δ log(π/π_0)` of each pair in favour of what its user prefers, or the difference of its rewards, steered by other pairs
    /// of the user.
    ///
    /// # Errors
    /// A margin that is not finite, or the user's interruption.
    pub fn margins(
        &self,
        policy: &str,
        model: &CausalLm,
        asked: Asked,
        token_budget: usize,
        reporter: &Reporter,
    ) -> Result<Vec<f64>, TrainError> {
        let groups: Vec<Group> = self.pool.users.pairs.iter().map(|pair| self.group(pair)).collect();
        let lengths: Vec<usize> = groups.iter().map(Group::tokens).collect();
        let mut margins = vec![0.0; groups.len()];
        let batches = micro_batches(&lengths, token_budget);
        let pieces: Vec<&[usize]> = batches.iter().flat_map(|members| members.chunks(CHUNK)).collect();
        for wave in pieces.chunks(WAVE * reporter.team.size()) {
            reporter.check_stop()?;
            let scored = reporter.team.deal(wave.len(), |piece| {
                let members = wave[piece];
                let own: Vec<Group> = members.iter().map(|&row| groups[row].clone()).collect();
                let batch = match model.score {
                    Some(_) => model.packed_for_rewards(&own),
                    None => PackedBatch::new(&own),
                };
                Ok::<_, TrainError>(of_answers(&self.steered(model, members, &batch, asked), &batch))
            })?;
            for (members, said) in wave.iter().zip(scored) {
                for (&row, answers) in members.iter().zip(said.chunks(2)) {
                    margins[row] = answers[0] - answers[1] - self.start[row];
                    let id = || vec![self.dataset.examples[self.pool.users.pairs[row].example].id.clone()];
                    reporter.check_finite(policy, 0, &[("a steered margin", margins[row])], id)?;
                }
            }
        }
        Ok(margins)
    }

    /// The scores of each user's pairs.
    ///
    /// # Errors
    /// A user without a pair.
    pub fn scores(
        &self,
        policy: &str,
        margins: &[f64],
        bootstrap: &Bootstrap,
    ) -> Result<Vec<DimensionScore>, TrainError> {
        let users = &self.pool.users;
        let score = |(user, name): (usize, &String)| {
            let own = (0..margins.len()).filter(|row| users.of[*row] == user);
            let pair = |row: usize| PairScore {
                example: row,
                margin: margins[row],
                prompt: Some(self.pool.prompt(row) as u64),
                ..PairScore::default()
            };
            Ok(score_dimension(policy, name, &own.map(pair).collect::<Vec<_>>(), bootstrap)?)
        };
        users.names.iter().enumerate().map(score).collect()
    }

    /// STEER between every two users who have exactly opposed pairs.
    ///
    /// # Errors
    /// Too few resamples.
    pub fn steer(
        &self,
        policy: &str,
        asked: Asked,
        margins: &[f64],
        bootstrap: &Bootstrap,
    ) -> Result<Vec<Steer>, TrainError> {
        let users = &self.pool.users;
        let (mut found, setting) = (vec![], asked.setting());
        for second in 0..users.names.len() {
            for first in 0..second {
                let opposed = self.opposed(first, second, margins);
                if !opposed.is_empty() {
                    let names = (users.names[first].as_str(), users.names[second].as_str());
                    found.push(steer(policy, names, &setting, asked.arm(), &opposed, bootstrap)?);
                }
            }
        }
        Ok(found)
    }

    /// The pairs of the first user that the second has the other way round.
    fn opposed(&self, first: usize, second: usize, margins: &[f64]) -> Vec<OpposedPair> {
        let users = &self.pool.users;
        let of = |user: usize| (0..margins.len()).filter(move |row| users.of[*row] == user);
        let answers = |row: usize| {
            let pair = &users.pairs[row];
            [pair.chosen, pair.rejected].map(|answer| self.dataset.examples[pair.example].answer_hash(answer))
        };
        let others: HashMap<[RowHash; 2], usize> = of(second).map(|row| (answers(row), row)).collect();
        let pair = |row: usize| {
            let [chosen, rejected] = answers(row);
            let other = others.get(&[rejected, chosen])?;
            let prompt = Some(self.pool.prompt(row) as u64);
            Some(OpposedPair { example: row, prompt, under_a: margins[row], under_b: -margins[*other] })
        };
        of(first).filter_map(pair).collect()
    }

    fn group(&self, pair: &spo_data::PairRef) -> Group<'a> {
        let example = &self.dataset.examples[pair.example];
        let answers = [pair.chosen, pair.rejected].map(|answer| example.answers[answer].as_slice());
        Group { prompt: &example.prompt, answers: answers.to_vec() }
    }

    /// The model with each of these pairs under a z of its own.
    fn steered(&self, model: &CausalLm, members: &[usize], batch: &PackedBatch, asked: Asked) -> CausalLm {
        let contexts = |row: &usize| {
            let (key, excluded) = (mix(self.seed ^ mix(*row as u64)), HashSet::from([self.pool.prompt(*row)]));
            self.pool.draw(self.pool.users.of[*row], asked.contexts, &excluded, key)
        };
        let sets: Vec<Vec<usize>> = members.iter().map(contexts).collect();
        let of_group = |(set, group): (usize, &spo_data::GroupSpan)| std::iter::repeat_n(set as i32, group.tokens());
        let rows: Vec<i32> = batch.groups.iter().enumerate().flat_map(of_group).collect();
        let contexts = self.pool.contexts(&sets, asked.labels, mix(!self.seed), &model.device());
        model.clone().steered_by(&contexts, Some(&rows))
    }
}

/// What a model says of each answer of a batch: the log-prob of its tokens, or its reward.
fn of_answers(model: &CausalLm, batch: &PackedBatch) -> Vec<f64> {
    if let Some(head) = &model.score {
        let hidden = model.hidden(&PackedInputs::new(batch, model.spec(), &model.device()));
        return head.forward(hidden).into_data().iter::<f64>().collect();
    }
    let logps = model.token_logps(batch, &HeadOptions::default());
    let sum = |tokens: &std::ops::Range<usize>| logps[tokens.clone()].iter().map(|logp| f64::from(*logp)).sum();
    batch.sequences.iter().map(sum).collect()
}
