//! Which rows of its task a phase visits, and when.

use crate::phase::Phase;
use spo_data::{Order, UnitOrder, Units};

impl Phase<'_> {
    /// In which order rows are visited that belong together like this.
    pub(crate) fn order(&self, units: Units) -> UnitOrder {
        let (batch, seed, round) = (self.training.pairs_per_step, self.seed, self.round);
        UnitOrder::new(units, Order { n: 0, batch, seed, round, shuffle: self.training.shuffle })
    }

    /// Tokens of all steps, where a row has so many.
    pub(crate) fn tokens(&self, units: Units, lengths: &[usize]) -> u64 {
        let order = self.order(units);
        let per_epoch = order.steps_per_epoch().max(1) as u64;
        let (whole, all) = (self.training.steps / per_epoch, lengths.iter().sum::<usize>() as u64);
        let rest = (whole * per_epoch..self.training.steps).flat_map(|step| order.batch(step as usize));
        whole * all + rest.map(|row| lengths[row] as u64).sum::<u64>()
    }

    /// The rows in the order of the first epoch.
    pub fn epoch(&self, units: Units) -> Vec<usize> {
        let order = self.order(units);
        (0..order.steps_per_epoch()).flat_map(|step| order.batch(step)).collect()
    }

    /// Whether the phase comes to each row before its steps are over.
    pub fn visits(&self, units: Units) -> Vec<bool> {
        let mut visited = vec![false; units.rows()];
        let order = self.order(units);
        for step in 0..self.training.steps.min(order.steps_per_epoch() as u64) {
            order.batch(step as usize).into_iter().for_each(|row| visited[row] = true);
        }
        visited
    }
}
