//! Rows that a batch has as a whole or not at all: the two directions of a contrast.

use std::ops::Range;

use crate::Order;

/// Which rows belong together, as runs of neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Units {
    rows: usize,
    /// Where each unit begins; `None`: each row is one.
    starts: Option<Vec<usize>>,
}

impl Units {
    /// Each of `rows` rows by itself.
    pub fn single(rows: usize) -> Self {
        Self { rows, starts: None }
    }

    /// Neighbours with the same key together, a row without one by itself.
    pub fn of(keys: impl IntoIterator<Item = Option<u64>>) -> Self {
        let (mut starts, mut last, mut rows) = (vec![], None, 0);
        for key in keys {
            if key.is_none() || key != last {
                starts.push(rows);
            }
            (last, rows) = (key, rows + 1);
        }
        Self { rows, starts: (starts.len() < rows).then_some(starts) }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of units.
    pub fn count(&self) -> usize {
        self.starts.as_ref().map_or(self.rows, Vec::len)
    }

    /// The rows of a unit.
    fn unit(&self, index: usize) -> Range<usize> {
        match &self.starts {
            None => index..index + 1,
            Some(starts) => starts[index]..starts.get(index + 1).copied().unwrap_or(self.rows),
        }
    }
}

/// Visits rows in batches of whole units.
///
/// A batch has as many units as hold the wanted number of rows on average: batch `k` is computed from the numbers alone, as in
/// [`Order`], which it is where each row is a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitOrder {
    units: Units,
    order: Order,
}

impl UnitOrder {
    /// The order of units in place of the rows of `order`, whose `n` does not count.
    pub fn new(units: Units, order: Order) -> Self {
        let (rows, count) = (units.rows().max(1), units.count());
        // Rounded to the nearest.
        let batch = ((2 * order.batch * count + rows) / (2 * rows)).max(1);
        let batch = if rows == count { order.batch } else { batch };
        Self { order: Order { n: count, batch, ..order }, units }
    }

    /// Batches in one epoch; the last may be partial.
    pub fn steps_per_epoch(&self) -> usize {
        self.order.steps_per_epoch()
    }

    /// Rows of batch `k`, counted over all epochs. Empty only when there are no rows.
    pub fn batch(&self, k: usize) -> Vec<usize> {
        self.order.batch(k).into_iter().flat_map(|unit| self.units.unit(unit)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(batch: usize, seed: u64, shuffle: bool) -> Order {
        Order { n: 0, batch, seed, round: 1, shuffle }
    }

    proptest! {
        #[test]
        fn an_epoch_has_every_row_once_and_no_batch_parts_a_unit(
            sizes in prop::collection::vec(1usize..5, 0..80), batch in 1usize..20, seed: u64, shuffle: bool,
        ) {
            let keys: Vec<Option<u64>> =
                sizes.iter().enumerate().flat_map(|(unit, size)| std::iter::repeat_n(Some(unit as u64), *size)).collect();
            let order = UnitOrder::new(Units::of(keys.clone()), order(batch, seed, shuffle));
            let mut seen = vec![];
            for step in 0..order.steps_per_epoch() {
                let rows = order.batch(step);
                for row in &rows {
                    let whole = keys.iter().enumerate().filter(|(_, key)| **key == keys[*row]);
                    prop_assert!(whole.map(|(other, _)| other).all(|other| rows.contains(&other)));
                }
                seen.extend(rows);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..keys.len()).collect::<Vec<_>>());
        }

        #[test]
        fn single_rows_come_as_they_do_without_units(rows in 0usize..200, batch in 1usize..20, seed: u64) {
            let plain = Order { n: rows, ..order(batch, seed, true) };
            for units in [Units::single(rows), Units::of((0..rows).map(|row| Some(row as u64)))] {
                let units = UnitOrder::new(units, order(batch, seed, true));
                prop_assert_eq!(units.steps_per_epoch(), plain.steps_per_epoch());
                prop_assert!((0..12).all(|step| units.batch(step) == plain.batch(step)));
            }
        }
    }

    #[test]
    fn a_batch_has_the_wanted_rows_on_average_and_rows_without_a_key_are_alone() {
        let pairs = Units::of((0..100).map(|row| Some(row / 2)));
        assert_eq!((pairs.count(), pairs.rows()), (50, 100));
        assert_eq!(UnitOrder::new(pairs, order(32, 1, true)).batch(0).len(), 32);
        assert_eq!(Units::of([None, None, Some(1), Some(1)]).count(), 3);
    }
}
