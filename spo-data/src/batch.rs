//! Packed batches: each prompt is stored once, followed by its answers, without padding.

use std::ops::Range;

/// A prompt with the answers to score: a pair is `[chosen, rejected]`, SFT one answer, a list any number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group<'a> {
    /// Prompt token ids.
    pub prompt: &'a [u32],
    /// Token ids of each answer.
    pub answers: Vec<&'a [u32]>,
}

impl Group<'_> {
    /// Tokens of the group in a packed batch.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.answers.iter().map(|answer| answer.len()).sum::<usize>()
    }
}

/// Where a group lies in [`PackedBatch::input_ids`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpan {
    /// Index of the first prompt token.
    pub start: usize,
    /// Prompt tokens.
    pub prompt_len: usize,
    /// Tokens of each answer; they follow the prompt one after the other.
    pub answer_lens: Vec<usize>,
}

impl GroupSpan {
    /// Tokens of the whole group.
    pub fn tokens(&self) -> usize {
        self.prompt_len + self.answer_lens.iter().sum::<usize>()
    }
}

/// What is looked at of one answer in a batch for a score head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueRow {
    /// Index in prompt and answer of the token that the head reads.
    pub token: usize,
    /// The first of the answer's tokens whose log-probability counts; its length where none does.
    pub predicted_from: usize,
}

/// Groups laid end to end. Attention must be masked so that an answer sees its prompt and itself only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// `[tokens]` token ids.
    pub input_ids: Vec<i32>,
    /// `[tokens]` positions; every answer restarts after its prompt.
    pub positions: Vec<i32>,
    /// One span per group, in the order given.
    pub groups: Vec<GroupSpan>,
    /// `[rows]` index into `input_ids` of the token whose hidden state predicts `targets[row]`.
    /// The first answer token is predicted by the last prompt token. Behind them one row per answer whose hidden state a
    /// score head reads, in a batch [`with_values`](Self::with_values).
    pub score_rows: Vec<i32>,
    /// `[rows]` token ids to predict.
    pub targets: Vec<i32>,
    /// Rows of each answer, group-major.
    pub sequences: Vec<Range<usize>>,
}

impl PackedBatch {
    /// Packs the groups. After an empty prompt the first answer token has no predictor and gets no row.
    pub fn new(groups: &[Group]) -> Self {
        let mut batch = Self::default();
        for group in groups {
            batch.push(group);
        }
        batch
    }

    /// Packs the groups for a score head, which reads one row per answer; of the other rows those are kept that predict an
    /// answer's tokens from `predicted_from` on. `values` has an entry per answer, group-major.
    ///
    /// # Panics
    /// There are more answers than entries.
    pub fn with_values(groups: &[Group], values: &[ValueRow]) -> Self {
        let mut batch = Self::new(groups);
        let (rows, targets) = (std::mem::take(&mut batch.score_rows), std::mem::take(&mut batch.targets));
        let (mut value_rows, mut answer) = (vec![], 0);
        for span in &batch.groups {
            let mut start = span.start + span.prompt_len;
            for &length in &span.answer_lens {
                let (ValueRow { token, predicted_from }, old) = (values[answer], batch.sequences[answer].clone());
                // After an empty prompt the first token has no row.
                let kept = (old.end + predicted_from).saturating_sub(length).clamp(old.start, old.end)..old.end;
                let first = batch.targets.len();
                batch.score_rows.extend(&rows[kept.clone()]);
                batch.targets.extend(&targets[kept]);
                batch.sequences[answer] = first..batch.targets.len();
                let in_prompt = token < span.prompt_len;
                value_rows.push((if in_prompt { span.start + token } else { start + token - span.prompt_len }) as i32);
                start += length;
                answer += 1;
            }
        }
        batch.score_rows.extend(value_rows);
        batch
    }

    /// Rows that a score head reads; they come last.
    pub fn values(&self) -> usize {
        self.score_rows.len() - self.targets.len()
    }

    fn push(&mut self, group: &Group) {
        let start = self.input_ids.len();
        let prompt_len = group.prompt.len();
        self.input_ids.extend(group.prompt.iter().map(|id| *id as i32));
        self.positions.extend(0..prompt_len as i32);
        for answer in &group.answers {
            let answer_start = self.input_ids.len();
            let first_row = self.targets.len();
            for (offset, id) in answer.iter().enumerate() {
                let predictor = match offset {
                    0 => (prompt_len > 0).then(|| start + prompt_len - 1),
                    _ => Some(answer_start + offset - 1),
                };
                if let Some(row) = predictor {
                    self.score_rows.push(row as i32);
                    self.targets.push(*id as i32);
                }
                self.input_ids.push(*id as i32);
                self.positions.push((prompt_len + offset) as i32);
            }
            self.sequences.push(first_row..self.targets.len());
        }
        self.groups.push(GroupSpan {
            start,
            prompt_len,
            answer_lens: group.answers.iter().map(|answer| answer.len()).collect(),
        });
    }

    /// Tokens in the batch.
    pub fn tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// Tokens of the longest group: the padded length inside attention.
    pub fn longest_group(&self) -> usize {
        self.groups.iter().map(GroupSpan::tokens).max().unwrap_or(0)
    }
}

/// Splits the groups of one batch into micro-batches of at most `token_budget` tokens.
///
/// `lengths` are [`Group::tokens`]. Attention pads, so a micro-batch counts groups × longest. Similar lengths
/// go together, the longest first, so that a lack of memory shows at once. A group larger than the budget is alone.
pub fn micro_batches(lengths: &[usize], token_budget: usize) -> Vec<Vec<usize>> {
    let mut by_length: Vec<usize> = (0..lengths.len()).collect();
    by_length.sort_by_key(|index| (std::cmp::Reverse(lengths[*index]), *index));
    let mut batches = Vec::new();
    let mut rest = by_length.as_slice();
    while let Some(first) = rest.first() {
        let fits = (token_budget / lengths[*first].max(1)).clamp(1, rest.len());
        let (batch, after) = rest.split_at(fits);
        batches.push(batch.to_vec());
        rest = after;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pair_shares_its_prompt() {
        let batch = PackedBatch::new(&[
            Group { prompt: &[1, 2], answers: vec![&[3, 4], &[5]] },
            Group { prompt: &[6], answers: vec![&[7]] },
        ]);
        assert_eq!(batch.input_ids, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(batch.positions, [0, 1, 2, 3, 2, 0, 1]);
        assert_eq!(batch.score_rows, [1, 2, 1, 5]);
        assert_eq!(batch.targets, [3, 4, 5, 7]);
        assert_eq!(batch.sequences, [0..2, 2..3, 3..4]);
        assert_eq!(batch.groups[1], GroupSpan { start: 5, prompt_len: 1, answer_lens: vec![1] });
        assert_eq!((batch.tokens(), batch.longest_group()), (7, 5));
    }

    #[test]
    fn rows_of_a_score_head_come_last() {
        let groups =
            [Group { prompt: &[1, 2], answers: vec![&[3, 4], &[5]] }, Group { prompt: &[], answers: vec![&[6, 7]] }];
        let row = |token, predicted_from| ValueRow { token, predicted_from };
        let batch = PackedBatch::with_values(&groups, &[row(3, 2), row(0, 1), row(1, 2)]);
        assert_eq!((batch.score_rows.as_slice(), batch.values()), ([3, 0, 6].as_slice(), 3));
        assert!(batch.targets.is_empty());
        let batch = PackedBatch::with_values(&groups, &[row(3, 1), row(2, 0), row(1, 1)]);
        assert_eq!((batch.score_rows, batch.targets), (vec![2, 1, 5, 3, 4, 6], vec![4, 5, 7]));
        assert_eq!(batch.sequences, [0..1, 1..2, 2..3]);
        let all = PackedBatch::with_values(&groups, &[row(0, 0), row(0, 0), row(0, 0)]);
        assert_eq!(all.targets, PackedBatch::new(&groups).targets);
    }

    #[test]
    fn an_empty_prompt_leaves_the_first_token_unscored() {
        let batch = PackedBatch::new(&[Group { prompt: &[], answers: vec![&[3, 4]] }]);
        assert_eq!((batch.score_rows, batch.targets), (vec![0], vec![4]));
    }

    #[test]
    fn budget_bounds_padded_tokens() {
        assert_eq!(micro_batches(&[3, 10, 4, 9], 20), vec![vec![1, 3], vec![2, 0]]);
        assert_eq!(micro_batches(&[50, 1], 20), vec![vec![0], vec![1]]);
        assert_eq!(micro_batches(&[0, 0], 0), vec![vec![0], vec![1]]);
        assert!(micro_batches(&[], 20).is_empty());
    }

    type Pair = (Vec<u32>, Vec<Vec<u32>>);

    fn pairs() -> impl Strategy<Value = Vec<Pair>> {
        let ids = || prop::collection::vec(0u32..1000, 1..12);
        prop::collection::vec((ids(), prop::collection::vec(ids(), 0..4)), 0..10)
    }

    proptest! {
        #[test]
        fn packing_loses_and_duplicates_no_token(pairs in pairs()) {
            let groups: Vec<Group> = pairs
                .iter()
                .map(|(prompt, answers)| Group {
                    prompt,
                    answers: answers.iter().map(Vec::as_slice).collect(),
                })
                .collect();
            let batch = PackedBatch::new(&groups);
            let flat: Vec<i32> = pairs
                .iter()
                .flat_map(|(prompt, answers)| prompt.iter().chain(answers.iter().flatten()))
                .map(|id| *id as i32)
                .collect();
            prop_assert_eq!(&batch.input_ids, &flat);
            prop_assert_eq!(batch.positions.len(), flat.len());
            let answers: Vec<&Vec<u32>> = pairs.iter().flat_map(|(_, answers)| answers).collect();
            prop_assert_eq!(batch.sequences.len(), answers.len());
            for (rows, answer) in batch.sequences.iter().zip(answers) {
                let scored: Vec<u32> = batch.targets[rows.clone()].iter().map(|id| *id as u32).collect();
                prop_assert_eq!(&scored, answer);
                for row in rows.clone() {
                    let position = batch.positions[batch.score_rows[row] as usize] as usize;
                    let offset = row - rows.start;
                    prop_assert_eq!(position + 1, batch.positions[batch.score_rows[rows.start] as usize] as usize + 1 + offset);
                }
            }
        }

        #[test]
        fn micro_batches_partition(lengths in prop::collection::vec(0usize..40, 0..50), budget in 0usize..120) {
            let batches = micro_batches(&lengths, budget);
            let mut seen: Vec<usize> = batches.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for batch in batches {
                let longest = batch.iter().map(|index| lengths[*index]).max().unwrap_or(0);
                prop_assert!(batch.len() == 1 || longest * batch.len() <= budget);
            }
        }
    }
}
