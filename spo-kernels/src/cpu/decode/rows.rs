//! Rows of activations.

/// Inputs that a product takes at a time.
pub const STEP: usize = 32;

/// `[rows, width]`, each row padded with zeros to a multiple of [`STEP`].
#[derive(Debug, Clone)]
pub struct Rows {
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

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
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
