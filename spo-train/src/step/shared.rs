//! The gradients of a step that several processes share, added up in host memory.

use crate::step::gradients::Gradients;
use crate::step::row_sparse::{RowSparse, TableRows};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use spo_team::{Team, TeamError, layout_of};
use std::collections::BTreeMap;

/// Numbers that are added up at once, unless one parameter has more.
const BUCKET: usize = 16 << 20;

/// What a process has of a parameter: all values, or some rows of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Layout {
    elements: usize,
    /// The table's sides, and which rows.
    rows: Option<([usize; 2], Vec<usize>)>,
}

type Layouts = BTreeMap<String, Layout>;

impl Layout {
    fn of(sum: &RowSparse) -> Self {
        let rows = match sum {
            RowSparse::Whole(_) => None,
            RowSparse::Rows(rows) => Some((rows.table(), rows.indices().collect())),
        };
        Self { elements: sum.elements(), rows }
    }

    /// What is there of it on either of two processes.
    fn with(self, other: Self) -> Self {
        let rows = self.rows.zip(other.rows).map(|((table, mut rows), (_, others))| {
            rows.extend(others);
            rows.sort_unstable();
            rows.dedup();
            (table, rows)
        });
        Self { elements: self.elements, rows }
    }

    /// How many numbers are exchanged.
    fn length(&self) -> usize {
        self.rows.as_ref().map_or(self.elements, |(table, rows)| rows.len() * table[1])
    }

    /// The numbers of a process, -0 where it has none: the only number that changes none by being added.
    fn flatten(&self, sum: Option<RowSparse>) -> Result<Vec<f32>, TeamError> {
        let unreadable = |text: String| TeamError::Library { call: "a sum of gradients", text };
        match (sum, &self.rows) {
            (None, _) => Ok(vec![-0.0; self.length()]),
            (Some(sum), None) if sum.dtype() != DType::F32 => Err(unreadable(format!("they are {:?}", sum.dtype()))),
            (Some(RowSparse::Rows(rows)), Some((_, indices))) => Ok(rows.take_out(indices)),
            (Some(sum), _) => {
                sum.into_whole().into_data().try_into_vec::<f32>().map_err(|error| unreadable(format!("{error:?}")))
            }
        }
    }

    fn restore(&self, values: &[f32], device: &Device) -> RowSparse {
        match &self.rows {
            Some((table, indices)) => RowSparse::Rows(TableRows::put_in(*table, indices, values)),
            None => {
                let data = TensorData::new(values.to_vec(), [values.len()]);
                RowSparse::Whole(Tensor::from_data(data, (device, DType::F32)))
            }
        }
    }
}

impl Gradients {
    /// Adds up what the processes of a team have, in a balanced tree; each has the sum then. The bits are those of a process
    /// that has all of it.
    ///
    /// # Errors
    /// Another process has failed, or the values cannot be read.
    pub fn sum_over(&mut self, team: &Team, device: &Device) -> Result<(), TeamError> {
        if team.is_solo() {
            return Ok(());
        }
        let layouts = self.layouts(team)?;
        let (mut names, mut bucket) = (vec![], vec![]);
        let mut number = 0;
        for (index, (path, layout)) in layouts.iter().enumerate() {
            bucket.extend(layout.flatten(self.sums.remove(path))?);
            names.push((path, layout));
            if bucket.len() < BUCKET && index + 1 < layouts.len() {
                continue;
            }
            number += 1;
            team.sum(layout_of([number, bucket.len() as u64]), &mut bucket)?;
            let mut rest = bucket.as_slice();
            for (path, layout) in names.drain(..) {
                let (values, after) = rest.split_at(layout.length());
                self.sums.insert(path.clone(), layout.restore(values, device));
                rest = after;
            }
            bucket.clear();
        }
        Ok(())
    }

    /// What any process has. Mostly all have the same, which they find out without naming it.
    fn layouts(&self, team: &Team) -> Result<Layouts, TeamError> {
        let own: Layouts = self.sums.iter().map(|(path, sum)| (path.clone(), Layout::of(sum))).collect();
        let unreadable =
            |error: serde_json::Error| TeamError::Library { call: "names of gradients", text: error.to_string() };
        let bytes = serde_json::to_vec(&own).map_err(unreadable)?;
        let mut hash = [0; 8];
        blake3::Hasher::new().update(&bytes).finalize_xof().fill(&mut hash);
        let hash = u64::from_le_bytes(hash);
        if team.agree(hash)?.iter().all(|other| *other == hash) {
            return Ok(own);
        }
        let mut all = Layouts::new();
        for bytes in team.gather(&bytes)? {
            for (path, layout) in serde_json::from_slice::<Layouts>(&bytes).map_err(unreadable)? {
                let layout = match all.remove(&path) {
                    Some(known) => layout.with(known),
                    None => layout,
                };
                all.insert(path, layout);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use spo_model::device;
    use spo_team::tree;

    /// What a shard has: of a matrix, of a table, of one that only some shards touch.
    #[derive(Debug, Clone)]
    struct Shard {
        matrix: Option<Vec<f32>>,
        rows: Vec<(usize, [f32; 2])>,
        expert: Option<Vec<f32>>,
    }

    fn shard() -> impl Strategy<Value = Shard> {
        let values = || proptest::option::of(prop::collection::vec(-9f32..9.0, 6));
        (values(), prop::collection::vec((0usize..5, [-9f32..9.0, -9f32..9.0]), 0..4), values())
            .prop_map(|(matrix, rows, expert)| Shard { matrix, rows, expert })
    }

    fn gradients(shard: &Shard) -> Gradients {
        let device = device::cpu();
        let mut sums = Gradients::default();
        for (path, values) in [("matrix", &shard.matrix), ("expert", &shard.expert)] {
            if let Some(values) = values {
                sums.add(path, Tensor::<1>::from_data(TensorData::new(values.clone(), [6]), (&device, DType::F32)));
            }
        }
        if !shard.rows.is_empty() {
            let mut table = TableRows::new([5, 2]);
            for (row, values) in &shard.rows {
                table.add_at(&[*row as i32], values);
            }
            sums.sums.insert("table".into(), RowSparse::Rows(table));
        }
        sums
    }

    fn bits(gradients: &Gradients) -> BTreeMap<String, (bool, Vec<u32>)> {
        let of = |(path, sum): (&String, &RowSparse)| {
            let values = sum.clone().into_whole().into_data();
            let sparse = matches!(sum, RowSparse::Rows(_));
            (path.clone(), (sparse, values.iter::<f32>().map(f32::to_bits).collect()))
        };
        gradients.sums.iter().map(of).collect()
    }

    fn in_tree<'s>(shards: impl IntoIterator<Item = &'s Shard>) -> Gradients {
        let add = |mut a: Gradients, b| {
            a.merge(b);
            a
        };
        tree::sum(shards.into_iter().map(gradients), add).unwrap_or_default()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn processes_come_to_the_bits_of_one(
            ranks in 1usize..5, each in 0u32..2, shards in prop::collection::vec(shard(), 8)
        ) {
            let shards = &shards[..ranks << each];
            let expected = bits(&in_tree(shards));
            let found = std::thread::scope(|scope| {
                let threads: Vec<_> = Team::threads(ranks).into_iter().map(|thread| scope.spawn(move || {
                    let team = thread.team();
                    let own = tree::share(shards.len(), team.rank(), team.size()).unwrap();
                    let mut sums = in_tree(&shards[own]);
                    sums.sum_over(&team, &device::cpu()).unwrap();
                    bits(&sums)
                })).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            });
            for sums in found {
                prop_assert_eq!(&sums, &expected);
            }
        }
    }
}
