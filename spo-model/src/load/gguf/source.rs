//! The tensors of a GGUF file, decoded straight into their final type.

use crate::decoder::blocks::BlockBits;
use crate::gguf::architecture::Architecture;
use crate::gguf::order::Order;
use crate::gguf::tensors;
use crate::load::dtype::{Weight, first_not_finite};
use crate::load::{LoadOptions, Storage, WeightSource, release};
use crate::quant::Format;
use crate::{ModelError, ModelSpec};
use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use rayon::prelude::*;
use spo_data::gguf::Gguf;
use std::collections::BTreeSet;

/// Values decoded between two returns of the file's pages.
const PART: usize = 1 << 20;

/// Hands out the tensors of a file and keeps account of those missing and unused.
pub struct GgufSource<'a> {
    file: &'a Gguf,
    architecture: &'a Architecture,
    spec: &'a ModelSpec,
    pub storage: Storage,
    blocks: Option<BlockBits>,
    device: Device,
    unused: BTreeSet<&'a str>,
    missing: Vec<String>,
}

impl<'a> GgufSource<'a> {
    pub fn new(
        file: &'a Gguf,
        architecture: &'a Architecture,
        spec: &'a ModelSpec,
        options: LoadOptions,
        device: &Device,
    ) -> Self {
        let storage = options.storage.unwrap_or_else(|| storage(file));
        let (unused, missing) = (file.tensors().collect(), vec![]);
        Self { file, architecture, spec, storage, blocks: options.blocks, device: device.clone(), unused, missing }
    }

    /// Refuses a file that lacked tensors or holds others. Factors of frequencies were read before, and a copy of a
    /// tied head may be there.
    pub fn finish(self) -> Result<(), ModelError> {
        let path = self.file.path().to_owned();
        if !self.missing.is_empty() {
            return Err(ModelError::MissingTensors { path, names: self.missing });
        }
        let derived =
            |name: &str| tensors::FREQUENCY_FACTORS.contains(&name) || (self.spec.tied && name == tensors::HEAD);
        let names: Vec<String> = self.unused.iter().filter(|name| !derived(name)).map(|name| (*name).into()).collect();
        if names.is_empty() { Ok(()) } else { Err(ModelError::UnexpectedTensors { path, names }) }
    }

    /// The values of a tensor, in the model's order; all of them finite.
    fn values<W: Weight>(
        &self,
        name: &str,
        format: &Format,
        order: Order,
        shape: &[usize],
    ) -> Result<Vec<W>, ModelError> {
        let (rows, width) = order.rows(shape);
        let row_bytes = format.size(width).ok_or_else(|| {
            let reason =
                format!("rows of {width} values do not fill the blocks of {} that {} has", format.values, format.name);
            self.file.error(format!("tensor `{name}`"), reason)
        })?;
        let length = row_bytes.saturating_mul(rows);
        let stored = self.file.bytes(name, length)?;
        let mut out = vec![W::from_wide(0.0); rows * width];
        let rows_of_part = (PART / width.max(1)).max(1);
        for (part, values) in out.chunks_mut((rows_of_part * width).max(1)).enumerate() {
            let first = part * rows_of_part;
            values.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, out)| {
                let from = order.file_row(first + row, rows) * row_bytes;
                decode(format, &stored.bytes[from..from + row_bytes], order.offset(), out);
            });
        }
        release(stored.part, stored.start, length);
        let Some((mut at, value)) = first_not_finite(&out, shape) else { return Ok(out) };
        // Where it stands in the file.
        at[0] = order.file_row(at[0], rows);
        let (path, name, stored) = (self.file.path().into(), name.into(), self.storage.name());
        Err(ModelError::NotFinite { path, name, at, value, stored })
    }
}

/// Decodes whole blocks, less what the file adds to each value.
fn decode<W: Weight>(format: &Format, bytes: &[u8], offset: f32, out: &mut [W]) {
    // Some blocks at a time.
    const VALUES: usize = 1024;
    let mut wide = [0.0; VALUES];
    let bytes = bytes.chunks(VALUES / format.values * format.bytes);
    for (bytes, out) in bytes.zip(out.chunks_mut(VALUES)) {
        let wide = &mut wide[..out.len()];
        format.decode(bytes, wide);
        out.iter_mut().zip(wide).for_each(|(out, value)| *out = W::from_wide(*value - offset));
    }
}

/// The narrowest type that holds all of a file's numbers: that of its tensors if they share one, or f32.
fn storage(file: &Gguf) -> Storage {
    let mut kinds = file.tensors().filter_map(|name| file.tensor(name)).map(|info| info.kind);
    let first = kinds.next();
    match first.and_then(Format::of_code).filter(|format| kinds.all(|kind| kind == format.code)) {
        Some(format) if format.name == "F16" => Storage::F16,
        Some(format) if format.name == "BF16" => Storage::Bf16,
        _ => Storage::F32,
    }
}

impl WeightSource for GgufSource<'_> {
    fn tensor<const D: usize>(&mut self, path: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
        let name = tensors::name(path).unwrap_or_else(|| path.into());
        let Some(info) = self.file.tensor(&name) else {
            // A placeholder, so that `finish` can name all that is missing at once.
            self.missing.push(name);
            return Ok(Tensor::zeros([1; D], &self.device));
        };
        self.unused.remove(name.as_str());
        if info.shape != shape {
            let (path, found, expected) = (self.file.path().into(), info.shape.clone(), shape.to_vec());
            return Err(ModelError::Shape { path, name, found, expected });
        }
        let format = Format::of_code(info.kind).ok_or_else(|| {
            let reason = format!("stored as {}, expected one of {}", Format::describe(info.kind), Format::names());
            let hint = "llama.cpp's llama-quantize writes a file anew in another of these types";
            self.file.error(format!("tensor `{name}`"), reason).hinted(hint)
        })?;
        let order = tensors::order(path, self.architecture, self.spec);
        let data = match self.storage {
            Storage::F32 => TensorData::new(self.values::<f32>(&name, format, order, &shape)?, shape),
            Storage::Bf16 => TensorData::new(self.values::<bf16>(&name, format, order, &shape)?, shape),
            Storage::F16 => TensorData::new(self.values::<f16>(&name, format, order, &shape)?, shape),
        };
        Ok(Tensor::from_data(data, (&self.device, self.storage.dtype())))
    }

    fn blocks(&self) -> Option<BlockBits> {
        self.blocks
    }
}
