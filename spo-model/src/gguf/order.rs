//! The order of a tensor's rows in the file against this crate's, or what is added to them.

/// How a tensor of the file differs from that of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Not at all.
    AsIs,
    /// The rows of each head in neighbouring pairs: row `2j + h` is the one that stood at `h · dim/2 + j`.
    Pairs {
        /// Heads of the tensor.
        heads: usize,
    },
    /// All queries, then all keys, then all values, in place of the three of each head.
    Stacked {
        /// Heads of the tensor.
        heads: usize,
    },
    /// Weights of norms, stored here as the distance from 1.
    FromOne,
}

impl Order {
    /// The file's row that holds one of the `rows` of the model.
    pub fn file_row(self, row: usize, rows: usize) -> usize {
        match self {
            Self::AsIs | Self::FromOne => row,
            Self::Pairs { heads } => {
                let dim = rows / heads;
                let (head, row) = (row / dim, row % dim);
                head * dim + row % (dim / 2) * 2 + row / (dim / 2)
            }
            Self::Stacked { heads } => {
                let dim = rows / heads / 3;
                let (head, part, row) = (row / dim / 3, row / dim % 3, row % dim);
                (part * heads + head) * dim + row
            }
        }
    }

    /// What is added to a value of the model.
    pub fn offset(self) -> f32 {
        if self == Self::FromOne { 1.0 } else { 0.0 }
    }

    /// Rows and their width, of a tensor of this shape: values that move alone are rows of one.
    pub fn rows(self, shape: &[usize]) -> (usize, usize) {
        match (shape, self) {
            ([rows, width], _) => (*rows, *width),
            (shape, Self::AsIs | Self::FromOne) => (1, shape.iter().product()),
            (shape, _) => (shape.iter().product(), 1),
        }
    }

    /// The values of the model as the file has them.
    pub fn of_file(self, values: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        if self == Self::AsIs {
            return values;
        }
        let ((rows, width), mut out) = (self.rows(shape), vec![0.0; values.len()]);
        for (row, values) in values.chunks_exact(width.max(1)).enumerate() {
            let at = self.file_row(row, rows) * width;
            out[at..at + width].iter_mut().zip(values).for_each(|(out, value)| *out = value + self.offset());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_where_llama_cpp_has_them() {
        let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
        // Two heads of four rows of one value each.
        let pairs = Order::Pairs { heads: 2 }.of_file(values[..8].to_vec(), &[8]);
        assert_eq!(pairs, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        // Two heads with query, key and value of two rows each.
        let stacked = Order::Stacked { heads: 2 }.of_file(values.clone(), &[12, 1]);
        assert_eq!(stacked, [0.0, 1.0, 6.0, 7.0, 2.0, 3.0, 8.0, 9.0, 4.0, 5.0, 10.0, 11.0]);
        assert_eq!(Order::FromOne.of_file(vec![0.5], &[1]), [1.5]);
        assert_eq!(Order::AsIs.of_file(values.clone(), &[12]), values);
    }

    #[test]
    fn every_order_is_a_permutation() {
        for order in [Order::AsIs, Order::Pairs { heads: 2 }, Order::Stacked { heads: 4 }, Order::FromOne] {
            let mut rows: Vec<usize> = (0..24).map(|row| order.file_row(row, 24)).collect();
            rows.sort_unstable();
            assert_eq!(rows, (0..24).collect::<Vec<_>>(), "{order:?}");
        }
    }
}
