//! The parts of a step's batch whose sums are leaves of a balanced tree. What they are does not depend on who computes them.

use spo_data::micro_batches;
use spo_team::{TeamError, tree};
use std::cmp::Reverse;
use std::ops::Range;

/// The micro-batches of a step's rows, shard by shard.
#[derive(Debug)]
pub(super) struct Shards {
    /// Places of the rows.
    pub micro_batches: Vec<Vec<usize>>,
    /// The micro-batches of each shard.
    ranges: Vec<Range<usize>>,
}

impl Shards {
    /// Rows of these lengths, in micro-batches of at most so many tokens; a micro-batch is in one shard.
    pub fn new(lengths: &[usize], shards: usize, token_budget: usize) -> Self {
        let (mut all, mut ranges) = (vec![], vec![]);
        for places in deal(lengths, shards) {
            let own: Vec<usize> = places.iter().map(|&place| lengths[place]).collect();
            let first = all.len();
            for members in micro_batches(&own, token_budget) {
                all.push(members.into_iter().map(|member| places[member]).collect());
            }
            ranges.push(first..all.len());
        }
        Self { micro_batches: all, ranges }
    }

    /// The micro-batches of a shard.
    pub fn of(&self, shard: usize) -> &[Vec<usize>] {
        &self.micro_batches[self.ranges[shard].clone()]
    }

    /// Those of neighbouring shards.
    pub fn of_all(&self, shards: Range<usize>) -> &[Vec<usize>] {
        &self.micro_batches[self.ranges[shards.start].start..self.ranges[shards.end - 1].end]
    }
}

/// The places in each shard: longest first, dealt to and fro, so that shards have about as many tokens.
fn deal(lengths: &[usize], shards: usize) -> Vec<Vec<usize>> {
    let mut by_length: Vec<usize> = (0..lengths.len()).collect();
    by_length.sort_by_key(|&place| Reverse(lengths[place]));
    let mut dealt = vec![vec![]; shards.max(1)];
    for (turn, places) in by_length.chunks(dealt.len()).enumerate() {
        for (index, &place) in places.iter().enumerate() {
            let shard = if turn % 2 == 0 { index } else { dealt.len() - 1 - index };
            dealt[shard].push(place);
        }
    }
    dealt.iter_mut().for_each(|places| places.sort_unstable());
    dealt
}

/// Why so many processes cannot share so many shards.
pub(crate) fn not_shared(shards: usize, processes: usize) -> TeamError {
    let possible = tree::possible_ranks(shards).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    TeamError::Contradiction {
        left: format!("{processes} processes share the run"),
        right: format!("its `[parallel] shards` = {shards} can be shared by {possible} only"),
        hint: "each process takes 1, 2, 4, 8, … whole shards: start another number, or begin a run with other `shards`"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_is_in_one_shard(lengths in prop::collection::vec(1usize..40, 0..30), shards in 1usize..7) {
            let found = Shards::new(&lengths, shards, 64);
            let mut seen = found.of_all(0..shards).concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            let tokens = |shard| found.of(shard).iter().flatten().map(|&place| lengths[place]).sum::<usize>();
            let tokens: Vec<usize> = (0..shards).map(tokens).collect();
            let longest = lengths.iter().max().copied().unwrap_or(0);
            prop_assert!(tokens.iter().max().unwrap_or(&0) - tokens.iter().min().unwrap_or(&0) <= 2 * longest);
            // One shard is the batch as it was without any.
            prop_assert_eq!(Shards::new(&lengths, 1, 64).micro_batches, micro_batches(&lengths, 64));
        }
    }
}
