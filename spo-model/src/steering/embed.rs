//! What the frozen model makes of an answer: the hidden state of its last token.

use crate::CausalLm;
use crate::decoder::PackedInputs;
use spo_data::{Group, PackedBatch, ValueRow, micro_batches};

/// The final norm's hidden state of an answer's last token, `[hidden]`.
pub type Embedding = Vec<f32>;

/// The row of a packed batch that holds an answer's embedding: its last own token, never one of padding.
pub fn embedding_row(prompt: &[u32], answer: &[u32]) -> ValueRow {
    ValueRow { token: (prompt.len() + answer.len()).saturating_sub(1), predicted_from: answer.len() }
}

impl CausalLm {
    /// The embedding of each answer of each group, in packed batches of at most `token_budget` tokens.
    pub fn embeddings(&self, groups: &[Group], token_budget: usize) -> Vec<Vec<Embedding>> {
        let lengths: Vec<usize> = groups.iter().map(Group::tokens).collect();
        let mut embedded = vec![vec![]; groups.len()];
        for members in micro_batches(&lengths, token_budget) {
            let members_of: Vec<Group> = members.iter().map(|&member| groups[member].clone()).collect();
            let rows = members_of
                .iter()
                .flat_map(|group| group.answers.iter().map(|answer| embedding_row(group.prompt, answer)));
            let batch = PackedBatch::with_values(&members_of, &rows.collect::<Vec<_>>());
            let hidden = self.hidden(&PackedInputs::new(&batch, self.spec(), &self.device()));
            let values: Vec<f32> = hidden.into_data().iter::<f32>().collect();
            let mut rows = values.chunks(self.spec().hidden_size).map(<[f32]>::to_vec);
            for &member in &members {
                embedded[member] = rows.by_ref().take(groups[member].answers.len()).collect();
            }
        }
        embedded
    }
}
