//! Reading a GGUF file back, to see that it holds the model.

use super::architecture::Architecture;
use super::encode::Encoding;
use super::tensors;
use super::write::ALIGNMENT;
use crate::load::WeightSource;
use crate::{CausalLm, ModelError, ModelSpec};
use burn::tensor::{Device, Tensor, TensorData};
use memmap2::Mmap;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A GGUF file of a model that this program wrote.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    bytes: Mmap,
    data: usize,
    tensors: BTreeMap<String, Info>,
}

#[derive(Debug)]
struct Info {
    shape: Vec<usize>,
    encoding: Encoding,
    offset: usize,
}

impl Gguf {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read, or is not whole.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(|e| ModelError::io(path, e))?;
        // SAFETY: the map is read-only; offsets are checked against it.
        let bytes = unsafe { Mmap::map(&file) }.map_err(|e| ModelError::io(path, e))?;
        let (data, tensors) = Cursor { bytes: &bytes, at: 0 }.header().ok_or_else(|| damaged(path, "its header"))?;
        Ok(Self { path: path.into(), data, tensors, bytes })
    }

    /// The model, in f32.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, or lies outside the file.
    pub fn model(&self, spec: &ModelSpec, device: &Device) -> Result<CausalLm, ModelError> {
        CausalLm::load(spec, &mut Source { file: self, architecture: Architecture::of(spec)?, spec, device })
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let missing = || ModelError::MissingTensors { path: self.path.clone(), names: vec![name.into()] };
        let info = self.tensors.get(name).ok_or_else(missing)?;
        if info.shape != shape {
            let (path, found, expected) = (self.path.clone(), info.shape.clone(), shape.to_vec());
            return Err(ModelError::Shape { path, name: name.into(), found, expected });
        }
        let start = self.data + info.offset;
        let bytes = self.bytes.get(start..start + info.encoding.bytes(shape.iter().product()));
        Ok(info.encoding.decode(bytes.ok_or_else(|| damaged(&self.path, name))?))
    }
}

fn damaged(path: &Path, what: &str) -> ModelError {
    ModelError::Safetensors { path: path.into(), reason: format!("GGUF: {what}") }
}

struct Source<'a> {
    file: &'a Gguf,
    architecture: &'static Architecture,
    spec: &'a ModelSpec,
    device: &'a Device,
}

impl WeightSource for Source<'_> {
    fn tensor<const D: usize>(&mut self, path: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
        let values = self.file.values(&tensors::name(path).unwrap_or_default(), &shape)?;
        let order = tensors::order(path, self.architecture, self.spec);
        let values = order.of_model(values, shape.get(1).copied().unwrap_or(1));
        Ok(Tensor::from_data(TensorData::new(values, shape), self.device))
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Where the data begin, and the tensors.
    fn header(mut self) -> Option<(usize, BTreeMap<String, Info>)> {
        if self.take(4)? != b"GGUF" || self.u32()? != 3 {
            return None;
        }
        let (tensors, pairs) = (self.u64()?, self.u64()?);
        for _ in 0..pairs {
            self.text()?;
            let kind = self.u32()?;
            self.skip(kind)?;
        }
        let mut infos = BTreeMap::new();
        for _ in 0..tensors {
            let name = self.text()?.to_string();
            let dimensions = self.u32()?;
            let mut shape = (0..dimensions.min(4)).map(|_| self.u64()).collect::<Option<Vec<usize>>>()?;
            shape.reverse();
            let encoding = Encoding::of_code(self.u32()?)?;
            infos.insert(name, Info { shape, encoding, offset: self.u64()? });
        }
        Some((self.at.next_multiple_of(ALIGNMENT), infos))
    }

    fn skip(&mut self, kind: u32) -> Option<()> {
        match kind {
            0 | 1 | 7 => self.take(1).map(drop),
            2 | 3 => self.take(2).map(drop),
            4..=6 => self.take(4).map(drop),
            8 => self.text().map(drop),
            9 => {
                let (kind, length) = (self.u32()?, self.u64()?);
                (0..length).try_for_each(|_| self.skip(kind))
            }
            10..=12 => self.take(8).map(drop),
            _ => None,
        }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    fn u64(&mut self) -> Option<usize> {
        usize::try_from(u64::from_le_bytes(*self.take(8)?.first_chunk()?)).ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.u64()?;
        std::str::from_utf8(self.take(length)?).ok()
    }
}
