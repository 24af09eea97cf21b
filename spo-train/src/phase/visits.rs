//! Which rows of its task a phase visits, and when.

use crate::phase::Phase;
use spo_data::Order;

impl Phase<'_> {
    /// In which order the rows of a task are visited.
    pub(crate) fn order(&self, rows: usize) -> Order {
        Order {
            n: rows,
            batch: self.training.pairs_per_step,
            seed: self.seed,
            round: self.round,
            shuffle: self.training.shuffle,
        }
    }

    /// Tokens of all steps, where a row has so many.
    pub(crate) fn tokens(&self, lengths: &[usize]) -> u64 {
        let order = self.order(lengths.len());
        let per_epoch = order.steps_per_epoch().max(1) as u64;
        let (whole, all) = (self.training.steps / per_epoch, lengths.iter().sum::<usize>() as u64);
        let rest = (whole * per_epoch..self.training.steps).flat_map(|step| order.batch(step as usize));
        whole * all + rest.map(|row| lengths[row] as u64).sum::<u64>()
    }

    /// The rows in the order of the first epoch.
    pub fn epoch(&self, rows: usize) -> Vec<usize> {
        let order = self.order(rows);
        (0..order.steps_per_epoch()).flat_map(|step| order.batch(step)).collect()
    }

    /// Whether the phase comes to each of `rows` rows before its steps are over.
    pub fn visits(&self, rows: usize) -> Vec<bool> {
        let order = self.order(rows);
        let mut visited = vec![false; rows];
        for step in 0..self.training.steps.min(order.steps_per_epoch() as u64) {
            order.batch(step as usize).into_iter().for_each(|row| visited[row] = true);
        }
        visited
    }
}
