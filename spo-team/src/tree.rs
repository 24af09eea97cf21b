//! Sums in a balanced binary tree: neighbours are added, then neighbouring sums, until one is left; an odd one at the end
//! waits for the next level. The additions, and so the bits of the result, do not depend on who makes them, where each
//! rank's leaves are a whole subtree.

/// The sum of the leaves so far: of each finished subtree one sum, larger ones first. It holds at most one more than the
/// binary logarithm of their number.
#[derive(Debug)]
pub struct Tree<T> {
    /// Sums with the number of levels below them.
    sums: Vec<(u32, T)>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { sums: vec![] }
    }
}

impl<T> Tree<T> {
    /// Adds the next leaf; `add(a, b)` is `a + b`.
    pub fn push(&mut self, leaf: T, mut add: impl FnMut(T, T) -> T) {
        let (mut level, mut sum) = (0, leaf);
        while let Some((_, left)) = self.sums.pop_if(|(of, _)| *of == level) {
            (level, sum) = (level + 1, add(left, sum));
        }
        self.sums.push((level, sum));
    }

    /// The sum of all leaves; `None` without any.
    pub fn finish(self, mut add: impl FnMut(T, T) -> T) -> Option<T> {
        self.sums.into_iter().rev().map(|(_, sum)| sum).reduce(|right, left| add(left, right))
    }
}

/// The sum of all leaves; `None` without any.
pub fn sum<T>(leaves: impl IntoIterator<Item = T>, mut add: impl FnMut(T, T) -> T) -> Option<T> {
    let mut tree = Tree::default();
    leaves.into_iter().for_each(|leaf| tree.push(leaf, &mut add));
    tree.finish(add)
}

/// The shards of a rank, where `ranks` share `shards` of them so that each has a whole subtree: one rank has the whole tree,
/// several have 1, 2, 4, 8, … leaves each. `None` where they cannot.
pub fn share(shards: usize, rank: usize, ranks: usize) -> Option<std::ops::Range<usize>> {
    let each = shards / ranks;
    (shards.is_multiple_of(ranks) && (ranks == 1 || each.is_power_of_two())).then(|| rank * each..(rank + 1) * each)
}

/// The numbers of ranks that can share so many shards.
pub fn possible_ranks(shards: usize) -> Vec<usize> {
    (1..=shards).filter(|ranks| share(shards, 0, *ranks).is_some()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the words above say it.
    fn level_by_level(mut sums: Vec<f32>) -> f32 {
        while sums.len() > 1 {
            sums = sums.chunks(2).map(|pair| pair.iter().copied().reduce(|a, b| a + b).unwrap_or_default()).collect();
        }
        sums[0]
    }

    proptest! {
        #[test]
        fn a_tree_is_what_it_says_and_that_of_the_ranks(
            ranks in 1usize..9, levels in 0u32..4, leaves in prop::collection::vec(-1e3f32..1e3, 64)
        ) {
            let shards = ranks << levels;
            let leaves = &leaves[..shards];
            let add = |a: f32, b: f32| a + b;
            let whole = sum(leaves.iter().copied(), add).map(f32::to_bits);
            prop_assert_eq!(whole, Some(level_by_level(leaves.to_vec()).to_bits()));
            let of_rank = |rank| sum(leaves[share(shards, rank, ranks).unwrap_or(0..0)].iter().copied(), add);
            prop_assert_eq!(sum((0..ranks).filter_map(of_rank), add).map(f32::to_bits), whole);
        }
    }

    #[test]
    fn only_whole_subtrees_are_shared() {
        assert_eq!(share(12, 1, 3), Some(4..8));
        assert_eq!(share(12, 1, 2), None, "six leaves are no whole subtree");
        assert_eq!(share(4, 0, 3), None);
        assert_eq!(share(2, 0, 4), None);
        assert_eq!(share(12, 0, 1), Some(0..12), "the whole tree");
        assert_eq!(possible_ranks(12), [1, 3, 6, 12]);
        assert_eq!(possible_ranks(4), [1, 2, 4]);
        assert_eq!(possible_ranks(1), [1]);
        assert_eq!(sum(Vec::<f32>::new(), |a, b| a + b), None);
    }
}
