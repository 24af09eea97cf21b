//! Matrices inside slices.

use std::ops::Range;

/// A matrix inside a slice.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `[rows, columns]`, row after row.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// `[rows, columns]` with `stride` values from row to row.
    pub fn strided(values: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(columns <= stride || rows <= 1, "rows overlap");
        assert!(rows == 0 || values.len() >= (rows - 1) * stride + columns, "the slice is too short");
        Self { values, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// `[columns, rows]`, the same values.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Some of its rows.
    pub fn rows(self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows outside the matrix");
        Self { values: &self.values[(rows.start * self.row_stride).min(self.values.len())..], rows: rows.len(), ..self }
    }

    /// Some of its columns.
    pub fn columns(self, columns: Range<usize>) -> Self {
        self.transposed().rows(columns).transposed()
    }
}
