//! What is asked of a policy before the next one takes its place in memory: answers to sample, answers to score.

use crate::task::data::TaskData;
use spo_data::{Dataset, Example};
use std::collections::HashSet;
use std::convert::Infallible;

/// One answer of a policy to each of some prompts.
#[derive(Debug, Clone)]
pub(crate) struct Draw<'a> {
    /// The distinct prompts.
    pub prompts: Vec<&'a [u32]>,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// What the draw depends on beside the policy and the prompts.
    pub seed: u64,
}

impl<'a> Draw<'a> {
    /// The answers that the rows of a phase in a round need, if they need any.
    pub fn of(data: &'a TaskData, seed: u64, round: u64) -> Option<Self> {
        let max_new_tokens = data.sampled_tokens()?;
        Some(Self { prompts: data.prompts(), max_new_tokens, seed: seed.wrapping_add(round) })
    }

    /// Tokens of prompts and answers, at most.
    fn tokens(&self) -> u64 {
        self.prompts.iter().map(|prompt| (prompt.len() + self.max_new_tokens) as u64).sum()
    }
}

/// What a policy scores.
#[derive(Debug)]
pub(crate) struct Scoring<'a> {
    /// The policy.
    pub policy: String,
    train: &'a Dataset,
    /// Training examples that rounds after it visit, by index.
    examples: Vec<usize>,
    made: Vec<Made<'a>>,
    /// Answers in all, held-out ones included; of sampled ones as many as there are prompts.
    pub answers: usize,
    /// Their tokens with their prompts; of sampled ones at most.
    pub tokens: u64,
}

/// Answers to score beside the data's own.
#[derive(Debug)]
pub(crate) enum Made<'a> {
    /// See [`TaskData::derived`].
    Derived(&'a TaskData),
    /// See [`TaskData::mismatched`].
    Mismatched(&'a TaskData),
    /// What the policy itself drew.
    Sampled(Draw<'a>),
    /// The pairs that drive λ.
    Driving(&'a Dataset),
}

impl<'a> Scoring<'a> {
    /// A policy that scores all held-out rows, some training examples, and what losses make of them, in this order.
    pub fn new(
        policy: &str,
        train: &'a Dataset,
        held_out: &Dataset,
        examples: Vec<usize>,
        made: Vec<Made<'a>>,
    ) -> Self {
        let mut scoring = Self { policy: policy.into(), train, examples, made, answers: 0, tokens: 0 };
        let Ok(rows) = scoring.rows(|_| Ok::<_, Infallible>(vec![]));
        let known = || rows.examples.iter().chain(&held_out.examples);
        scoring.answers = known().map(|example| example.answers.len()).sum();
        scoring.tokens = known().map(|example| example.tokens() as u64).sum();
        for made in &scoring.made {
            if let Made::Sampled(draw) = made {
                scoring.answers += draw.prompts.len();
                scoring.tokens += draw.tokens();
            }
        }
        scoring
    }

    /// All that is scored beside the held-out rows, what losses make once each; `sampled` gives the answers that the
    /// policy drew.
    ///
    /// # Errors
    /// Those of `sampled`.
    pub fn rows<E>(&self, mut sampled: impl FnMut(&Draw) -> Result<Vec<Example>, E>) -> Result<Dataset, E> {
        let mut examples: Vec<Example> =
            self.examples.iter().map(|&index| self.train.examples[index].clone()).collect();
        let mut seen = HashSet::new();
        for made in &self.made {
            let made = match made {
                Made::Derived(data) => data.derived(),
                Made::Mismatched(data) => data.mismatched(),
                Made::Sampled(draw) => sampled(draw)?,
                Made::Driving(rows) => {
                    examples.extend(rows.examples.iter().cloned());
                    continue;
                }
            };
            examples.extend(made.into_iter().filter(|example| seen.insert(example.answer_hash(0))));
        }
        Ok(Dataset { examples, report: Default::default() })
    }
}
