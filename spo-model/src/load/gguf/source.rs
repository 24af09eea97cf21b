//! The tensors of a GGUF file, decoded straight into their final type.

use crate::decoder::blocks::BlockBits;
use crate::decoder::kept::StoredWeight;
use crate::device::on_cpu;
use crate::gguf::architecture::Architecture;
use crate::gguf::order::Order;
use crate::gguf::tensors::{self, Place};
use crate::load::dtype::{Weight, first_not_finite};
use crate::load::{Kept, LoadOptions, Storage, WeightSource, release};
use crate::quant::Format;
use crate::quant::packed::{BlockRows, Packed};
use crate::{ModelError, ModelSpec};
use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use rayon::prelude::*;
use spo_data::gguf::{Bytes, Gguf};
use std::collections::BTreeSet;

/// Values decoded between two returns of the file's pages.
const PART: usize = 1 << 20;

/// Hands out the tensors of a file and keeps account of those missing and unused.
pub struct GgufSource<'a> {
    file: &'a Gguf,
    architecture: &'a Architecture,
    spec: &'a ModelSpec,
    pub storage: Storage,
    blocks: Option<Kept>,
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

    /// Bytes of a row of so many values.
    fn row_bytes(&self, name: &str, format: &Format, width: usize) -> Result<usize, ModelError> {
        format.size(width).ok_or_else(|| {
            let reason =
                format!("rows of {width} values do not fill the blocks of {} that {} has", format.values, format.name);
            self.file.error(format!("tensor `{name}`"), reason).into()
        })
    }

    /// The place of a parameter of this shape and the format of each of its tensors; `None`, and noted as missing, where the
    /// file lacks one.
    fn find(&mut self, path: &str, shape: &[usize]) -> Result<Option<(Place, Vec<&'static Format>)>, ModelError> {
        let place = tensors::place(path, self.architecture).unwrap_or_else(|| Place::one(path.into()));
        let expected = place.shape(shape, self.spec.experts.as_ref().map_or(0, |experts| experts.count));
        let mut formats = vec![];
        for name in &place.names {
            let Some(info) = self.file.tensor(name) else {
                self.missing.push(name.clone());
                return Ok(None);
            };
            if info.shape != expected {
                let (path, name, found) = (self.file.path().into(), name.clone(), info.shape.clone());
                return Err(ModelError::Shape { path, name, found, expected });
            }
            formats.push(Format::of_code(info.kind).ok_or_else(|| {
                let reason = format!("stored as {}, expected one of {}", Format::describe(info.kind), Format::names());
                let hint = "llama.cpp's llama-quantize writes a file anew in another of these types";
                self.file.error(format!("tensor `{name}`"), reason).hinted(hint)
            })?);
        }
        self.unused.retain(|unused| !place.names.iter().any(|name| name == unused));
        Ok(Some((place, formats)))
    }

    /// The stored rows of a tensor, or of an expert in it.
    fn stored(&self, name: &str, row_bytes: usize, rows: usize, expert: usize) -> Result<Bytes<'_>, ModelError> {
        let length = row_bytes.saturating_mul(rows);
        let start = length.saturating_mul(expert);
        let whole = self.file.bytes(name, start.saturating_add(length))?;
        Ok(Bytes { part: whole.part, start: whole.start + start, bytes: &whole.bytes[start..] })
    }

    /// The blocks of a matrix, its rows in the model's order; all of its values are finite.
    fn rows(
        &self,
        place: &Place,
        format: &'static Format,
        order: Order,
        dims @ [rows, width]: [usize; 2],
    ) -> Result<Packed, ModelError> {
        let (each, mut bytes) = (rows / place.names.len(), vec![]);
        for name in &place.names {
            let row_bytes = self.row_bytes(name, format, width)?;
            let stored = self.stored(name, row_bytes, each, place.expert.unwrap_or(0))?;
            bytes.reserve(stored.bytes.len());
            for row in 0..each {
                bytes.extend_from_slice(&stored.bytes[order.file_row(row, each) * row_bytes..][..row_bytes]);
            }
            release(stored.part, stored.start, stored.bytes.len());
        }
        let matrix = Packed::Rows(BlockRows { format, dims, bytes });
        let Some((at, value)) = matrix.not_finite() else { return Ok(matrix) };
        Err(self.not_finite(place, at, value, "f32", order, each))
    }

    /// An error that says where in the file a value stands that is no number.
    fn not_finite(
        &self,
        place: &Place,
        mut at: Vec<usize>,
        value: f32,
        stored: &'static str,
        order: Order,
        rows: usize,
    ) -> ModelError {
        let name = place.names[at[0] / rows.max(1)].clone();
        at[0] = order.file_row(at[0] % rows.max(1), rows);
        place.expert.into_iter().for_each(|expert| at.insert(0, expert));
        ModelError::NotFinite { path: self.file.path().into(), name, at, value, stored }
    }

    /// The values of a parameter, in the model's order; all of them finite.
    fn values<W: Weight>(
        &self,
        place: &Place,
        formats: &[&'static Format],
        order: Order,
        shape: &[usize],
    ) -> Result<Vec<W>, ModelError> {
        let (rows, width) = order.rows(shape);
        let each = rows / place.names.len();
        let mut out = vec![W::from_wide(0.0); rows * width];
        let rows_of_part = (PART / width.max(1)).max(1);
        for ((name, format), out) in place.names.iter().zip(formats).zip(out.chunks_mut((each * width).max(1))) {
            let row_bytes = self.row_bytes(name, format, width)?;
            let stored = self.stored(name, row_bytes, each, place.expert.unwrap_or(0))?;
            for (part, values) in out.chunks_mut((rows_of_part * width).max(1)).enumerate() {
                let first = part * rows_of_part;
                values.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, out)| {
                    let from = order.file_row(first + row, each) * row_bytes;
                    decode(format, &stored.bytes[from..from + row_bytes], order.offset(), out);
                });
            }
            release(stored.part, stored.start, stored.bytes.len());
        }
        let Some((at, value)) = first_not_finite(&out, shape) else { return Ok(out) };
        // Vectors whose values move are rows of one; others are one row.
        let rows = if shape.len() == 1 { shape[0] } else { each };
        Err(self.not_finite(place, at, value, self.storage.name(), order, rows))
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
        let Some((place, formats)) = self.find(path, &shape)? else {
            // A placeholder, so that `finish` can name all that is missing at once.
            return Ok(Tensor::zeros([1; D], &self.device));
        };
        let order = tensors::order(path, self.architecture, self.spec);
        let data = match self.storage {
            Storage::F32 => TensorData::new(self.values::<f32>(&place, &formats, order, &shape)?, shape),
            Storage::Bf16 => TensorData::new(self.values::<bf16>(&place, &formats, order, &shape)?, shape),
            Storage::F16 => TensorData::new(self.values::<f16>(&place, &formats, order, &shape)?, shape),
        };
        Ok(Tensor::from_data(data, (&self.device, self.storage.dtype())))
    }

    fn kept(&mut self, path: &str, shape: [usize; 2]) -> Result<Option<StoredWeight>, ModelError> {
        // What is wrong with a tensor, reading it as numbers says.
        let stored = tensors::in_blocks(path, shape, self.architecture, self.file)
            .filter(|stored| self.blocks == Some(Kept::AsStored) && (on_cpu(&self.device) || stored.on_card.is_some()));
        let Some((place, formats)) = (if stored.is_some() { self.find(path, &shape)? } else { None }) else {
            return Ok(None);
        };
        let order = tensors::order(path, self.architecture, self.spec);
        let matrix = self.rows(&place, formats[0], order, shape)?;
        let unfit = |reason| ModelError::NotOnCards { path: self.file.path().into(), name: path.into(), reason };
        StoredWeight::new(matrix, &self.device).map(Some).map_err(unfit)
    }

    fn blocks(&self) -> Option<BlockBits> {
        self.blocks.and_then(Kept::bits)
    }
}
