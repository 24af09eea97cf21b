//! Values of a parameter that are zero but for some rows: gradients and moments of an embedding table, whose rows are
//! touched by the tokens that occur. In host memory only; elsewhere all values are there.

use burn::tensor::{DType, Tensor};
use spo_kernels::accumulate::accumulate;
use spo_kernels::cpu::{Values, rows};
use std::collections::BTreeMap;

/// Values of a parameter.
///
/// # Shapes
/// `[elements]` of the parameter, flattened.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one per parameter, most are whole")]
pub enum RowSparse {
    /// All of them, `[elements]`.
    Whole(Tensor<1>),
    /// Those of some rows of a table.
    Rows(TableRows),
}

/// Some rows of a table, the others being zero. f32, in host memory.
///
/// # Shapes
/// The table is `[vocab, hidden]`; a row is `[hidden]`.
#[derive(Debug, Clone)]
pub struct TableRows {
    /// Rows of the table, and values in each.
    table: [usize; 2],
    rows: BTreeMap<usize, Vec<f32>>,
}

impl RowSparse {
    /// How many values there are, zeros among them.
    pub fn elements(&self) -> usize {
        match self {
            Self::Whole(values) => values.dims()[0],
            Self::Rows(rows) => rows.table.iter().product(),
        }
    }

    /// Their type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Whole(values) => values.dtype(),
            Self::Rows(_) => DType::F32,
        }
    }

    /// All values, zeros among them.
    pub fn into_whole(self) -> Tensor<1> {
        match self {
            Self::Whole(values) => values,
            Self::Rows(rows) => rows.whole(),
        }
    }

    /// The rows of `table` that are not zero, of values in host memory.
    pub fn into_rows(self, table: [usize; 2]) -> TableRows {
        match self {
            Self::Rows(rows) => rows,
            Self::Whole(values) => TableRows::of(&Values::take(values).expect("in host memory"), table),
        }
    }

    /// Adds other values, in the memory of these where they are on the host.
    pub fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Rows(mut sum), Self::Rows(other)) => {
                other.rows.iter().for_each(|(index, row)| add_row(sum.row_mut(*index), row));
                Self::Rows(sum)
            }
            (Self::Whole(sum), Self::Rows(other)) if Values::fit(&sum) => {
                let mut sum = Values::take(sum).expect("just asked");
                let values = sum.make_mut();
                other.rows.iter().for_each(|(index, row)| add_row(&mut values[index * other.table[1]..], row));
                Self::Whole(sum.into_tensor())
            }
            (sum, other) => Self::Whole(add(sum.into_whole(), other.into_whole())),
        }
    }

    /// The inner product with other values of the same parameter, summed in f64 on the host.
    pub fn dot(&self, other: &Self) -> f64 {
        let sum = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        if let (Self::Rows(rows), Self::Rows(other)) = (self, other) {
            let both = rows.rows.iter().filter_map(|(index, row)| Some((row, other.rows.get(index)?)));
            return both.map(|(row, other)| sum(row, other)).sum();
        }
        let (own, other) = (self.clone().into_whole(), other.clone().into_whole());
        match (Values::of(&own), Values::of(&other)) {
            (Some(own), Some(other)) => sum(&own, &other),
            _ => (own * other).sum().into_data().iter::<f64>().next().unwrap_or(0.0),
        }
    }

    /// All of them times a factor.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        match self {
            Self::Whole(values) => Self::Whole(values.mul_scalar(factor)),
            Self::Rows(mut rows) => {
                rows.rows.values_mut().flatten().for_each(|value| *value *= factor as f32);
                Self::Rows(rows)
            }
        }
    }

    /// The sum of their squares, where they are in host memory.
    pub fn squares_on_host(&self) -> Option<f64> {
        match self {
            Self::Whole(values) => Some(rows::sum_of_squares(&Values::of(values)?)),
            Self::Rows(rows) => Some(rows.rows.values().map(|row| rows::sum_of_squares(row)).sum()),
        }
    }
}

/// `sum + other` in the sum's type, and in its memory where it is f32.
fn add(sum: Tensor<1>, other: Tensor<1>) -> Tensor<1> {
    if !Values::fit(&sum) {
        return accumulate(sum, other);
    }
    let (mut sum, other) = (Values::take(sum).expect("just asked"), Values::take(other.cast(DType::F32)));
    let other = other.expect("on the sum's device");
    rows::add(sum.make_mut(), &other);
    sum.into_tensor()
}

impl TableRows {
    /// No row of a table of these sides yet.
    pub fn new(table: [usize; 2]) -> Self {
        Self { table, rows: BTreeMap::new() }
    }

    fn of(values: &[f32], table: [usize; 2]) -> Self {
        let rows = values.chunks_exact(table[1]).enumerate().filter(|(_, row)| row.iter().any(|value| *value != 0.0));
        Self { table, rows: rows.map(|(index, row)| (index, row.to_vec())).collect() }
    }

    /// Rows of the table, and values in each.
    pub fn table(&self) -> [usize; 2] {
        self.table
    }

    /// Which rows are there, in order.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        self.rows.keys().copied()
    }

    /// A row, if it is there.
    pub fn get(&self, index: usize) -> Option<&[f32]> {
        self.rows.get(&index).map(Vec::as_slice)
    }

    /// A row, which is zero if it was not there.
    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        self.rows.entry(index).or_insert_with(|| vec![0.0; self.table[1]])
    }

    /// The rows that are there, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut [f32])> {
        self.rows.iter_mut().map(|(index, row)| (*index, row.as_mut_slice()))
    }

    /// Adds row `i` of `values`, `[tokens, width]`, to row `ids[i]`.
    pub fn add_at(&mut self, ids: &[i32], values: &[f32]) {
        for (id, row) in ids.iter().zip(values.chunks_exact(self.table[1])) {
            add_row(self.row_mut(*id as usize), row);
        }
    }

    /// These rows one behind the other, the absent ones as -0: the only number that changes none by being added.
    pub fn take_out(&self, indices: &[usize]) -> Vec<f32> {
        let absent = vec![-0.0; self.table[1]];
        indices.iter().flat_map(|index| self.rows.get(index).unwrap_or(&absent)).copied().collect()
    }

    /// The other way round.
    pub fn put_in(table: [usize; 2], indices: &[usize], values: &[f32]) -> Self {
        let rows = indices.iter().copied().zip(values.chunks_exact(table[1]).map(<[f32]>::to_vec));
        Self { table, rows: rows.collect() }
    }

    fn whole(&self) -> Tensor<1> {
        let elements = self.table.iter().product();
        let mut values = vec![0.0; elements];
        for (index, row) in &self.rows {
            values[index * self.table[1]..][..row.len()].copy_from_slice(row);
        }
        Values::new(values, [elements]).into_tensor()
    }
}

fn add_row(sum: &mut [f32], row: &[f32]) {
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(values: &RowSparse) -> Vec<f32> {
        values.clone().into_whole().into_data().iter::<f32>().collect()
    }

    fn rows(ids: &[i32], values: &[f32]) -> RowSparse {
        let mut rows = TableRows::new([4, 2]);
        rows.add_at(ids, values);
        RowSparse::Rows(rows)
    }

    #[test]
    fn sums_are_those_of_whole_tables() {
        let (a, b) = (rows(&[2, 0, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), rows(&[3, 0], &[7.0, 8.0, 9.0, 10.0]));
        assert_eq!(numbers(&a), [3.0, 4.0, 0.0, 0.0, 6.0, 8.0, 0.0, 0.0]);
        let whole = |values: &RowSparse| RowSparse::Whole(values.clone().into_whole());
        let expected = [12.0, 14.0, 0.0, 0.0, 6.0, 8.0, 7.0, 8.0];
        for (a, b) in [(a.clone(), b.clone()), (whole(&a), b.clone()), (a.clone(), whole(&b)), (whole(&a), whole(&b))] {
            let sum = a.plus(b);
            assert_eq!(numbers(&sum), expected);
            assert_eq!(sum.squares_on_host(), Some(expected.iter().map(|x| f64::from(x * x)).sum()));
            assert_eq!((sum.elements(), sum.dtype()), (8, DType::F32));
            assert!(sum.clone().into_rows([4, 2]).indices().eq([0, 2, 3]));
            assert_eq!(sum.dot(&rows(&[3, 1], &[1.0, 2.0, 5.0, 5.0])), 23.0);
            assert_eq!(numbers(&sum.scaled(0.5)), expected.map(|value| value / 2.0));
        }
    }
}
