//! Log-probabilities of given answers, without a tape.

use crate::decoder::PackedInputs;
use crate::{CausalLm, ModelError, ModelSpec};
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
        let lengths: Vec<usize> = groups.iter().map(group_len).collect();
        let mut scored = vec![vec![]; groups.len()];
        let mut done = 0;
        for members in micro_batches(&lengths, token_budget) {
            let batch = PackedBatch::new(&members.iter().map(|&i| groups[i].clone()).collect::<Vec<_>>());
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
