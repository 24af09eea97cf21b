//! Rows of a GGUF file's blocks, or of 16-bit floats.

use crate::quant::{Format, float};
use std::ops::Range;

/// Rows of blocks, in the model's order.
#[derive(Debug)]
pub struct BlockRows {
    /// What a block is; not F32.
    pub format: &'static Format,
    /// `[out, in]`; `in` fills blocks.
    pub dims: [usize; 2],
    /// Row after row.
    pub bytes: Vec<u8>,
}

impl BlockRows {
    pub(super) fn decode(&self, row: usize, columns: Range<usize>, out: &mut [f32]) {
        let Format { values, bytes, .. } = *self.format;
        let start = (row * (self.dims[1] / values) + columns.start / values) * bytes;
        let blocks = &self.bytes[start..start + columns.len() / values * bytes];
        match (values, bytes) {
            (1, 2) => float::widen(self.format, blocks, out),
            _ => self.format.decode(blocks, out),
        }
    }
}
