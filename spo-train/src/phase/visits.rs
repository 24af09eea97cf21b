//! Which rows of its task a phase visits, and when.

use crate::phase::Phase;
use spo_data::{Order, UnitOrder, Units};

/// What keeps the order of replayed rows apart from that of the phase's own.
const REPLAYED: u64 = 0x7265_706c_6179;

/// The rows of every step: a batch of the phase's own, then the next ones of each earlier dimension that it replays. All of
/// it follows from the numbers of the step and of the run, so a resumed phase goes on where it was.
#[derive(Debug, Clone)]
pub(crate) struct Visits {
    own: UnitOrder,
    replayed: Vec<Stream>,
}

/// Replayed rows, over and over: each time all of them in a new order.
#[derive(Debug, Clone)]
struct Stream {
    /// Place of the first among the task's rows.
    first: usize,
    /// Rows of a step.
    pairs: usize,
    /// Of single rows.
    order: Order,
}

impl Visits {
    /// The rows of the step after `done` steps; the replayed ones stand behind the own ones, in their order.
    pub fn batch(&self, done: usize) -> Vec<usize> {
        let mut rows = self.own.batch(done);
        for stream in &self.replayed {
            rows.extend(stream.rows(done).map(|row| stream.first + row));
        }
        rows
    }

    /// Steps of one pass over the phase's own rows.
    pub fn steps_per_epoch(&self) -> usize {
        self.own.steps_per_epoch()
    }
}

impl Stream {
    fn rows(&self, done: usize) -> impl Iterator<Item = usize> {
        (done * self.pairs..(done + 1) * self.pairs).flat_map(|place| self.order.batch(place))
    }
}

impl Phase<'_> {
    /// The rows of every step, where the task has such units of its own and so many rows of each dimension that it replays.
    pub(crate) fn schedule(&self, own: Units, replayed: &[usize]) -> Visits {
        let (mut first, mut streams) = (own.rows(), vec![]);
        for (index, &rows) in replayed.iter().enumerate() {
            streams.extend(self.stream(index, rows).map(|stream| Stream { first, ..stream }));
            first += rows;
        }
        Visits { own: self.order(own), replayed: streams }
    }

    /// In which order the own rows of a task are visited that belong together like this.
    pub(crate) fn order(&self, units: Units) -> UnitOrder {
        let (batch, seed, round) = (self.training.own_pairs_per_step(), self.seed, self.round);
        UnitOrder::new(units, Order { n: 0, batch, seed, round, shuffle: self.training.shuffle })
    }

    /// In which order the rows of a replayed dimension come.
    fn stream(&self, index: usize, rows: usize) -> Option<Stream> {
        let (_, pairs) = self.training.replayed_pairs().nth(index)?;
        let seed = self.seed.wrapping_add(REPLAYED.wrapping_mul(index as u64 + 1));
        let order = Order { n: rows, batch: 1, seed, round: self.round, shuffle: self.training.shuffle };
        Some(Stream { first: 0, pairs, order })
    }

    /// Tokens of all steps in own rows, where a row has so many.
    pub(crate) fn tokens(&self, units: Units, lengths: &[usize]) -> u64 {
        let order = self.order(units);
        let per_epoch = order.steps_per_epoch().max(1) as u64;
        let (whole, all) = (self.training.steps / per_epoch, lengths.iter().sum::<usize>() as u64);
        let rest = (whole * per_epoch..self.training.steps).flat_map(|step| order.batch(step as usize));
        whole * all + rest.map(|row| lengths[row] as u64).sum::<u64>()
    }

    /// The same in rows of a replayed dimension.
    pub(crate) fn replayed_tokens(&self, index: usize, lengths: &[usize]) -> u64 {
        let Some(stream) = self.stream(index, lengths.len()) else { return 0 };
        let all = lengths.iter().sum::<usize>() as u64;
        let places = self.training.steps as usize * stream.pairs;
        let (whole, epoch) = (places / lengths.len().max(1), lengths.len());
        let rest = (whole * epoch..places).flat_map(|place| stream.order.batch(place));
        whole as u64 * all + rest.map(|row| lengths[row] as u64).sum::<u64>()
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

    /// The same of the rows of a replayed dimension.
    pub fn replayed_visits(&self, index: usize, rows: usize) -> Vec<bool> {
        let mut visited = vec![false; rows];
        let Some(stream) = self.stream(index, rows) else { return visited };
        let places = (self.training.steps as usize).saturating_mul(stream.pairs).min(rows);
        (0..places).flat_map(|place| stream.order.batch(place)).for_each(|row| visited[row] = true);
        visited
    }
}
