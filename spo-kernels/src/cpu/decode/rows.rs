//! Rows of activations.

/// Inputs that a product takes at a time.
pub(super) const STEP: usize = 32;

/// `[rows, width]`, each row padded with zeros to a multiple of [`STEP`].
#[derive(Debug, Clone)]
pub(super) struct Rows {
    width: usize,
    stride: usize,
    values: Vec<f32>,
}

impl Rows {
    /// Zeros.
    pub fn new(rows: usize, width: usize) -> Self {
        let stride = width.next_multiple_of(STEP);
        Self { width, stride, values: vec![0.0; rows * stride] }
    }

    /// Rows from tasks that computed `columns` outputs each, `[tasks, rows, columns]`.
    pub fn gather(tasks: &[f32], rows: usize, columns: usize, width: usize) -> Self {
        let mut gathered = Self::new(rows, width);
        for row in 0..rows {
            let parts = tasks.chunks_exact(rows * columns).map(|task| &task[row * columns..(row + 1) * columns]);
            gathered
                .row_mut(row)
                .chunks_mut(columns)
                .zip(parts)
                .for_each(|(to, from)| to.copy_from_slice(&from[..to.len()]));
        }
        gathered
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.stride
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `[width]`
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.stride..][..self.width]
    }

    /// `[width]`
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.stride..][..self.width]
    }

    /// All rows, each `[width]`.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.stride).map(|row| &mut row[..self.width])
    }

    /// A row with its padding.
    #[inline(always)]
    pub fn steps(&self, row: usize) -> &[[f32; STEP]] {
        self.values[row * self.stride..(row + 1) * self.stride].as_chunks().0
    }
}
