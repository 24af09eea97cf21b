//! The order in which examples are visited: a function of seed, round and epoch, with an O(1) cursor.

/// Visits `n` items in batches; batch `k` is computed from the numbers alone, so resuming costs nothing.
///
/// The permutation of an epoch is a keyed Feistel network over the next even power of two, walked until it
/// falls inside `0..n` (Black and Rogaway, *Ciphers with Arbitrary Finite Domains*, 2002).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Items per epoch.
    pub n: usize,
    /// Items per batch; at least 1 is used.
    pub batch: usize,
    /// The run's seed.
    pub seed: u64,
    /// Index of the round: each round has its own order.
    pub round: u64,
    /// Whether to permute; otherwise items come as they are in every epoch.
    pub shuffle: bool,
}

/// Rounds of the Feistel network; four make a pseudo-random permutation, two more are margin.
const FEISTEL_ROUNDS: usize = 6;

impl Order {
    /// Windows in one epoch; the last may be partial.
    pub fn steps_per_epoch(&self) -> usize {
        self.n.div_ceil(self.batch.max(1))
    }

    /// Items of batch `k`, counted over all epochs. Empty only when there are no items.
    pub fn batch(&self, k: usize) -> Vec<usize> {
        let per_epoch = self.steps_per_epoch();
        if per_epoch == 0 {
            return Vec::new();
        }
        let keys = self.keys((k / per_epoch) as u64);
        let start = (k % per_epoch) * self.batch.max(1);
        let end = (start + self.batch.max(1)).min(self.n);
        (start..end).map(|item| if self.shuffle { permute(item, self.n, &keys) } else { item }).collect()
    }

    fn keys(&self, epoch: u64) -> [u64; FEISTEL_ROUNDS] {
        let mut hasher = blake3::Hasher::new_derive_key("spo-data order v1");
        for number in [self.seed, self.round, epoch] {
            hasher.update(&number.to_le_bytes());
        }
        let mut reader = hasher.finalize_xof();
        std::array::from_fn(|_| {
            let mut bytes = [0; 8];
            reader.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        })
    }
}

fn permute(item: usize, n: usize, keys: &[u64; FEISTEL_ROUNDS]) -> usize {
    let bits = usize::BITS - (n - 1).leading_zeros();
    let half = bits.div_ceil(2).max(1);
    let mask = (1u64 << half) - 1;
    let mut value = item as u64;
    loop {
        let (mut left, mut right) = (value >> half, value & mask);
        for key in keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        value = (left << half) | right;
        if value < n as u64 {
            return value as usize;
        }
    }
}

/// Finaliser of splitmix64: every input bit reaches every output bit.
pub(crate) fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epoch(order: &Order, epoch: usize) -> Vec<usize> {
        let batches = order.steps_per_epoch();
        (epoch * batches..(epoch + 1) * batches).flat_map(|k| order.batch(k)).collect()
    }

    proptest! {
        #[test]
        fn every_epoch_is_a_permutation(n in 0usize..300, batch in 0usize..20, seed: u64, round in 0u64..4, shuffle: bool) {
            let order = Order { n, batch, seed, round, shuffle };
            for index in [0, 1, 5] {
                let mut seen = epoch(&order, index);
                seen.sort_unstable();
                prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn seed_round_and_epoch_change_the_order() {
        let order = Order { n: 100, batch: 8, seed: 7, round: 0, shuffle: true };
        let first = epoch(&order, 0);
        assert_eq!(first, epoch(&order.clone(), 0));
        assert_ne!(first, epoch(&order, 1));
        assert_ne!(first, epoch(&Order { round: 1, ..order.clone() }, 0));
        assert_ne!(first, epoch(&Order { seed: 8, ..order.clone() }, 0));
        assert_eq!(order.batch(12).len(), 4);
        let plain = Order { shuffle: false, ..order };
        assert_eq!(epoch(&plain, 3), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn positions_are_spread_evenly() {
        let (n, seeds) = (10, 20_000);
        let mut counts = vec![0usize; n];
        for seed in 0..seeds {
            let order = Order { n, batch: 1, seed, round: 0, shuffle: true };
            counts[order.batch(0)[0]] += 1;
        }
        let expected = seeds as f64 / n as f64;
        let chi_square: f64 = counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
        assert!(chi_square < 27.9, "chi-square {chi_square} with 9 degrees of freedom: {counts:?}");
    }
}
