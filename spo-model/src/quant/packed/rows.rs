//! Rows of a GGUF file's blocks, or of 16-bit floats.

use super::coded::{Coded, Form};
use crate::quant::{Codes, Coding, Format, Unpacked, float};
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
    pub(super) fn form(&self) -> Result<Form, String> {
        match &self.format.coding {
            Coding::Codes(Codes { bits, group, shift, adds, .. }) => Ok(Form::of_codes(*bits, *group, *shift, *adds)),
            Coding::Number(_) => Err(format!("{} are numbers, not codes", self.format.name)),
        }
    }

    pub(super) fn code(&self, to: &mut Coded) {
        // Numbers have no form to be coded in.
        let Coding::Codes(Codes { unpack, group, adds, .. }) = &self.format.coding else { return };
        let (mut block, values) = (Unpacked::default(), self.format.values);
        let groups = values / group;
        for (index, bytes) in self.bytes.chunks_exact(self.format.bytes).enumerate() {
            unpack(bytes, &mut block);
            to.codes[index * values..][..values].copy_from_slice(&block.codes[..values]);
            to.scales[index * groups..][..groups].copy_from_slice(&block.scales[..groups]);
            if *adds {
                to.adds[index * groups..][..groups].copy_from_slice(&block.adds[..groups]);
            }
        }
    }

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
