//! Log-probabilities of given answers, without a tape.

use crate::decoder::PackedInputs;
use crate::{CausalLm, ModelError, ModelSpec};
use burn::tensor::Tensor;
use spo_core::logprob::divergence::token_kl;
use spo_core::logprob::{HeadOptions, token_logps};
use spo_data::{Group, PackedBatch, micro_batches};

impl CausalLm {
    /// `log p(target)` of each answer token of a batch, `[rows]`, f32.
    pub fn token_logps(&self, batch: &PackedBatch, head: &HeadOptions) -> Vec<f32> {
        let inputs = PackedInputs::new(batch, self.spec(), &self.device());
        let logps = token_logps(self.hidden(&inputs), self.head_weight(), inputs.targets, &self.spec().head(head));
        logps.into_data().iter::<f32>().collect()
    }

    /// Scores groups of answers in packed batches of at most `token_budget` tokens: for each group,
    /// for each of its answers, the token log-probs. `progress` is called with the groups done.
    pub fn score(
        &self,
        groups: &[Group],
        token_budget: usize,
        head: &HeadOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Vec<Vec<Vec<f32>>> {
        let mut scored = vec![vec![]; groups.len()];
        let mut done = 0;
        for (members, batch) in packed(groups, token_budget) {
            let logps = self.token_logps(&batch, head);
            let mut answers = batch.sequences.iter().map(|rows| logps[rows.clone()].to_vec());
            for &member in &members {
                scored[member] = answers.by_ref().take(groups[member].answers.len()).collect();
            }
            done += members.len();
            progress(done);
        }
        scored
    }
}

/// What a policy says at every token of some answers: the hidden states that predict them, batch by batch, and its head.
#[derive(Debug)]
pub struct Predictions {
    hidden: Vec<Tensor<2>>,
    weight: Tensor<2>,
}

impl CausalLm {
    /// What this policy says at every token of the groups' answers, in packed batches of at most `token_budget` tokens.
    pub fn predictions(&self, groups: &[Group], token_budget: usize) -> Predictions {
        let batches = packed(groups, token_budget).into_iter();
        let hidden = batches.map(|(_, batch)| self.hidden(&PackedInputs::new(&batch, self.spec(), &self.device())));
        Predictions { hidden: hidden.collect(), weight: self.head_weight() }
    }

    /// `Σ_t KL(policy(·|x, y_<t) ‖ self(·|x, y_<t))` in nats over the tokens of each answer of each group, from what the policy
    /// said of the same groups with the same budget.
    pub fn divergences(
        &self,
        policy: &Predictions,
        groups: &[Group],
        token_budget: usize,
        head: &HeadOptions,
    ) -> Vec<Vec<f64>> {
        let mut found = vec![vec![]; groups.len()];
        for ((members, batch), hidden) in packed(groups, token_budget).into_iter().zip(&policy.hidden) {
            let own = self.hidden(&PackedInputs::new(&batch, self.spec(), &self.device()));
            let policy = (hidden.clone(), policy.weight.clone());
            let each = token_kl((own, self.head_weight()), policy, &self.spec().head(head)).into_data();
            let each: Vec<f64> = each.iter::<f64>().collect();
            let mut answers = batch.sequences.iter().map(|rows| each[rows.clone()].iter().sum());
            for member in members {
                found[member] = answers.by_ref().take(groups[member].answers.len()).collect();
            }
        }
        found
    }
}

/// Groups in packed batches of at most `token_budget` tokens, with the indices of their members.
fn packed(groups: &[Group], token_budget: usize) -> Vec<(Vec<usize>, PackedBatch)> {
    let lengths: Vec<usize> = groups.iter().map(group_len).collect();
    let batch = |members: Vec<usize>| {
        let batch = PackedBatch::new(&members.iter().map(|&member| groups[member].clone()).collect::<Vec<_>>());
        (members, batch)
    };
    micro_batches(&lengths, token_budget).into_iter().map(batch).collect()
}

impl ModelSpec {
    /// Checks that a row's tokens are in the vocabulary and fit the context.
    ///
    /// # Errors
    /// [`ModelError::TokenOutOfRange`], [`ModelError::TooLong`]
    pub fn check_row(&self, id: &str, prompt: &[u32], answers: &[&[u32]]) -> Result<(), ModelError> {
        let (vocab, context) = (self.vocab_size, self.context);
        let mut tokens = prompt.iter().chain(answers.iter().copied().flatten());
        if let Some(&token) = tokens.find(|&&token| token as usize >= vocab) {
            return Err(ModelError::TokenOutOfRange { id: id.into(), token, vocab });
        }
        let found = prompt.len() + answers.iter().map(|answer| answer.len()).max().unwrap_or(0);
        if found > context {
            return Err(ModelError::TooLong { id: id.into(), found, context });
        }
        Ok(())
    }
}

/// Tokens of a group with its shared prompt counted once.
fn group_len(group: &Group) -> usize {
    group.prompt.len() + group.answers.iter().map(|answer| answer.len()).sum::<usize>()
}
