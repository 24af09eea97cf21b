//! The bytes of a GGUF file.

use super::encode::Encoding;
use crate::ModelError;
use crate::gguf::keys::Value;
use crate::gguf::order::Order;
use crate::parameters::Parameter;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

/// Tensors begin at multiples of this.
pub const ALIGNMENT: usize = 32;

/// A tensor that is to be written.
pub struct Entry {
    name: String,
    shape: Vec<usize>,
    encoding: Encoding,
    source: Source,
}

enum Source {
    /// A parameter, read from the device when its turn comes.
    Parameter(Box<Parameter>, Order),
    /// Rows of one parameter after those of another: an entry each of the first dimension.
    Parts(Vec<(Parameter, Range<usize>)>),
    Values(Vec<f32>),
}

impl Entry {
    /// A parameter under this name.
    pub fn new(name: String, parameter: Parameter, order: Order, encoding: Encoding) -> Self {
        Self { name, shape: parameter.shape.clone(), encoding, source: Source::Parameter(Box::new(parameter), order) }
    }

    /// The first entry of a tensor: these rows of a matrix.
    pub fn part(name: String, parameter: Parameter, rows: Range<usize>, encoding: Encoding) -> Self {
        let shape = vec![1, rows.len(), parameter.shape[1]];
        Self { name, shape, encoding, source: Source::Parts(vec![(parameter, rows)]) }
    }

    /// Adds an entry to a tensor of this name.
    pub fn add(&mut self, parameter: Parameter, rows: Range<usize>) {
        if let Source::Parts(parts) = &mut self.source {
            parts.push((parameter, rows));
            self.shape[0] = parts.len();
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tensor in this shape, of as many values.
    pub fn shaped(mut self, shape: Vec<usize>) -> Self {
        self.shape = shape;
        self
    }

    /// A vector of these values.
    pub fn values(name: &str, values: Vec<f32>, encoding: Encoding) -> Self {
        Self { name: name.into(), shape: vec![values.len()], encoding, source: Source::Values(values) }
    }

    fn bytes(&self) -> usize {
        self.encoding.bytes(self.shape.iter().product())
    }

    fn encode(self) -> Vec<u8> {
        let values = match self.source {
            Source::Values(values) => values,
            Source::Parameter(parameter, order) => {
                let values: Vec<f32> = parameter.value.into_data().iter::<f32>().collect();
                order.of_file(values, &self.shape)
            }
            Source::Parts(parts) => {
                let rows = |(parameter, rows): (Parameter, Range<usize>)| {
                    let width = parameter.shape[1];
                    let part = parameter.value.narrow(0, rows.start * width, rows.len() * width);
                    part.into_data().iter::<f32>().collect::<Vec<_>>()
                };
                parts.into_iter().flat_map(rows).collect()
            }
        };
        self.encoding.encode(&values)
    }
}

/// Writes a file aside, one tensor at a time, and renames it into place.
pub fn write(path: &Path, metadata: &[(String, Value)], entries: Vec<Entry>) -> Result<(), ModelError> {
    let aside = path.with_added_extension("part");
    let write = || {
        let mut file = BufWriter::new(File::create(&aside)?);
        let header = header(metadata, &entries);
        file.write_all(&header)?;
        file.write_all(&vec![0; padding(header.len())])?;
        for entry in entries {
            let bytes = entry.encode();
            file.write_all(&bytes)?;
            file.write_all(&vec![0; padding(bytes.len())])?;
        }
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&aside, path)
    };
    write().map_err(|e| ModelError::io(path, e))
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT) - length
}

fn header(metadata: &[(String, Value)], entries: &[Entry]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        string(&mut out, key);
        out.extend(type_code(value).to_le_bytes());
        put(&mut out, value);
    }
    let mut offset = 0;
    for entry in entries {
        string(&mut out, &entry.name);
        out.extend((entry.shape.len() as u32).to_le_bytes());
        // The dimension that varies fastest comes first.
        entry.shape.iter().rev().for_each(|size| out.extend((*size as u64).to_le_bytes()));
        out.extend(entry.encoding.code().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += entry.bytes().next_multiple_of(ALIGNMENT);
    }
    out
}

fn type_code(value: &Value) -> u32 {
    match value {
        Value::U32(_) => 4,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Strings(_) | Value::Integers(_) | Value::Numbers(_) => 9,
        Value::U64(_) => 10,
    }
}

fn put(out: &mut Vec<u8>, value: &Value) {
    let mut list = |item_type: u32, length: usize| {
        out.extend(item_type.to_le_bytes());
        out.extend((length as u64).to_le_bytes());
    };
    match value {
        Value::U32(n) => out.extend(n.to_le_bytes()),
        Value::U64(n) => out.extend(n.to_le_bytes()),
        Value::F32(n) => out.extend(n.to_le_bytes()),
        Value::Bool(on) => out.push((*on).into()),
        Value::String(text) => string(out, text),
        Value::Strings(texts) => {
            list(8, texts.len());
            texts.iter().for_each(|text| string(out, text));
        }
        Value::Integers(numbers) => {
            list(5, numbers.len());
            numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
        Value::Numbers(numbers) => {
            list(6, numbers.len());
            numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
