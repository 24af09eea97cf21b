//! Memory-mapped safetensors, single or sharded (`model.safetensors.index.json`).

use super::Storage;
use super::dtype::{Weight, convert, convert_transposed, first_not_finite};
use super::index::read_index;
use super::{Kept, LoadOptions, WeightSource, header, packed, release};
use crate::decoder::blocks::BlockBits;
use crate::decoder::kept::StoredWeight;
use crate::device::{check_dtype, on_cpu};
use crate::layout::Layout;
use crate::quant::Format;
use crate::quant::packed::{BlockRows, Packed, StoredBlocks};
use crate::{ModelError, ModelSpec};
use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Metadata, TensorInfo};
use spo_data::lfs::is_lfs_pointer;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The weight files of a model, opened and checked, not yet read.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    bytes: Mmap,
    data_start: usize,
    metadata: Metadata,
}

impl Checkpoint {
    /// Opens the weights of a model directory.
    ///
    /// # Errors
    /// No safetensors in it, a damaged file, an index that names shards outside the directory or
    /// does not agree with its shards.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        if single.exists() {
            return Self::open_file(&single);
        }
        if !index.exists() {
            return Err(no_weights(dir));
        }
        let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (tensor, shard) in read_index(&index)? {
            named.entry(shard).or_default().insert(tensor);
        }
        let mut shards = vec![];
        for (name, tensors) in named {
            let shard = Shard::open(&dir.join(name))?;
            let held: BTreeSet<String> = shard.metadata.offset_keys().into_iter().collect();
            let names = |difference: Vec<&String>| difference.into_iter().cloned().collect::<Vec<_>>();
            let (absent, extra) =
                (names(tensors.difference(&held).collect()), names(held.difference(&tensors).collect()));
            if !absent.is_empty() || !extra.is_empty() {
                return Err(ModelError::Index { index, shard: shard.path, absent, extra });
            }
            shards.push(shard);
        }
        Ok(Self { path: index, shards })
    }

    /// Opens one safetensors file.
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub fn open_file(path: &Path) -> Result<Self, ModelError> {
        Ok(Self { path: path.into(), shards: vec![Shard::open(path)?] })
    }

    /// Names of all tensors.
    pub fn names(&self) -> BTreeSet<String> {
        self.shards.iter().flat_map(|shard| shard.metadata.offset_keys()).collect()
    }

    /// A source for a model of this layout of its tensors in the form that `options` names.
    pub fn source(&self, layout: &'static Layout, options: LoadOptions, device: &Device) -> CheckpointSource<'_> {
        let unused = self.names();
        CheckpointSource { checkpoint: self, layout, options, device: device.clone(), unused, missing: vec![] }
    }

    /// The tensor called `name`, as stored, or `None` if there is none.
    ///
    /// # Errors
    /// Its shape is another, or its type cannot be loaded.
    pub fn read<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        storage: Option<Storage>,
        device: &Device,
    ) -> Result<Option<Tensor<D>>, ModelError> {
        self.read_from(name, shape, As::default(), storage, device)
    }

    /// As [`read`](Self::read), stored otherwise.
    fn read_from<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        stored: As,
        storage: Option<Storage>,
        device: &Device,
    ) -> Result<Option<Tensor<D>>, ModelError> {
        let Some((shard, info)) = self.find(name) else { return Ok(None) };
        let As { transposed, part, scalar } = stored;
        let mut expected = shape.to_vec();
        if transposed {
            expected.swap(D - 1, D - 2);
        }
        let info = &match part {
            Some(part) => part_of(info, part).unwrap_or_else(|| info.clone()),
            None if scalar && info.shape.is_empty() => TensorInfo { shape: vec![1], ..info.clone() },
            None => info.clone(),
        };
        if info.shape != expected {
            let (path, name, found) = (shard.path.clone(), name.into(), info.shape.clone());
            return Err(ModelError::Shape { path, name, found, expected });
        }
        let from = shard.storage(info, name)?;
        let to = storage.unwrap_or(from);
        check_dtype(device, to)?;
        // Typed values: burn copies a vector of bytes to align it.
        let rows_of = transposed.then_some(expected[D - 1]);
        let data = match to {
            Storage::F32 => shard.data::<f32, D>(info, from, rows_of, shape),
            Storage::Bf16 => shard.data::<bf16, D>(info, from, rows_of, shape),
            Storage::F16 => shard.data::<f16, D>(info, from, rows_of, shape),
        };
        let data = data.map_err(|(at, value)| {
            let (path, name, stored) = (shard.path.clone(), name.into(), to.name());
            ModelError::NotFinite { path, name, at, value, stored }
        })?;
        Ok(Some(Tensor::from_data(data, (device, to.dtype()))))
    }

    /// As [`read`](Self::read), as stored.
    ///
    /// # Errors
    /// As [`read`](Self::read), or there is none.
    pub fn require<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        device: &Device,
    ) -> Result<Tensor<D>, ModelError> {
        self.read(name, shape, None, device)?.ok_or_else(|| self.missing(name))
    }

    /// The tensor called `name` of this shape, flat, as stored.
    ///
    /// # Errors
    /// As [`read`](Self::read), or there is none.
    pub fn read_flat(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor<1>, ModelError> {
        let elements = [shape.iter().product::<usize>()];
        let read = match *shape {
            [a] => self.read(name, [a], None, device)?,
            [a, b] => self.read(name, [a, b], None, device)?.map(|tensor: Tensor<2>| tensor.reshape(elements)),
            _ => None,
        };
        read.ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> ModelError {
        ModelError::MissingTensors { path: self.path.clone(), names: vec![name.into()] }
    }

    /// Whether two tensors have the same shape and values, whatever types they are stored in.
    ///
    /// # Errors
    /// There is no such tensor, or its type cannot be loaded.
    pub fn equal(&self, first: &str, second: &str) -> Result<bool, ModelError> {
        let found = |name: &str| self.find(name).ok_or_else(|| self.missing(name));
        let ((one, a), (other, b)) = (found(first)?, found(second)?);
        if a.shape != b.shape {
            return Ok(false);
        }
        if a.dtype == b.dtype {
            return Ok(one.bytes(a) == other.bytes(b));
        }
        let wide = |shard: &Shard, info: &TensorInfo, name: &str| -> Result<Vec<f32>, ModelError> {
            Ok(convert(shard.bytes(info), shard.storage(info, name)?, |_| ()))
        };
        Ok(wide(one, a, first)? == wide(other, b, second)?)
    }

    /// A tensor as the file has it.
    fn raw(&self, name: &str) -> Option<packed::Raw<'_>> {
        let (shard, info) = self.find(name)?;
        Some(packed::Raw { dtype: info.dtype, shape: &info.shape, bytes: shard.bytes(info) })
    }

    fn find(&self, name: &str) -> Option<(&Shard, &TensorInfo)> {
        self.shards.iter().find_map(|shard| Some((shard, shard.metadata.info(name)?)))
    }
}

/// How a tensor is stored.
#[derive(Debug, Clone, Copy, Default)]
struct As {
    /// With the last two dimensions swapped.
    transposed: bool,
    /// As this entry of a first dimension more.
    part: Option<usize>,
    /// As one number without a dimension.
    scalar: bool,
}

/// An entry of a tensor's first dimension.
fn part_of(info: &TensorInfo, part: usize) -> Option<TensorInfo> {
    let (count, shape) = info.shape.split_first().filter(|(count, _)| part < **count)?;
    let (start, end) = info.data_offsets;
    let size = (end - start) / count;
    let start = start + part * size;
    Some(TensorInfo { dtype: info.dtype, shape: shape.to_vec(), data_offsets: (start, start + size) })
}

impl Shard {
    fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(|e| ModelError::io(path, e))?;
        // SAFETY: the map is read-only; a file that another process changes meanwhile could give
        // torn weights, as with every memory-mapped loader, but offsets stay within the map.
        let bytes = unsafe { Mmap::map(&file) }.map_err(|e| ModelError::io(path, e))?;
        if is_lfs_pointer(&bytes) {
            return Err(ModelError::LfsPointer { path: path.into() });
        }
        let (data_start, metadata) =
            header::read(&bytes).map_err(|reason| ModelError::Safetensors { path: path.into(), reason })?;
        Ok(Self { path: path.into(), bytes, data_start, metadata })
    }

    /// A tensor's bytes.
    fn bytes(&self, info: &TensorInfo) -> &[u8] {
        let (start, end) = info.data_offsets;
        &self.bytes[self.data_start + start..self.data_start + end]
    }

    /// In which type a tensor is stored.
    fn storage(&self, info: &TensorInfo, name: &str) -> Result<Storage, ModelError> {
        Storage::of_file(info.dtype).ok_or_else(|| ModelError::Dtype {
            path: self.path.clone(),
            name: name.into(),
            found: format!("{:?}", info.dtype),
        })
    }

    /// A tensor's values, stored as `from`; `rows_of` is the length of its rows in the file where it is to be transposed.
    /// The file's pages go back part by part. An error has place and value of the first that is not finite.
    fn data<W: Weight, const D: usize>(
        &self,
        info: &TensorInfo,
        from: Storage,
        rows_of: Option<usize>,
        shape: [usize; D],
    ) -> Result<TensorData, (Vec<usize>, f32)> {
        let (start, bytes) = (self.data_start + info.data_offsets.0, self.bytes(info));
        let done = |part: Range<usize>| release(&self.bytes, start + part.start, part.len());
        let values: Vec<W> = match rows_of {
            Some(columns) => convert_transposed(bytes, from, columns, done),
            None => convert(bytes, from, done),
        };
        first_not_finite(&values, &shape).map_or_else(|| Ok(TensorData::new(values, shape)), Err)
    }
}

/// Why a directory without safetensors cannot be loaded: pickle files are named.
fn no_weights(dir: &Path) -> ModelError {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut pickles: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end)))
        .collect();
    pickles.sort_unstable();
    match pickles.is_empty() {
        true => ModelError::MissingFile { dir: dir.into(), file: SINGLE.into() },
        false => ModelError::Pickle { dir: dir.into(), files: pickles },
    }
}

/// Hands out the tensors of a [`Checkpoint`] and keeps account of those missing and unused.
#[derive(Debug)]
pub struct CheckpointSource<'a> {
    checkpoint: &'a Checkpoint,
    layout: &'static Layout,
    options: LoadOptions,
    device: Device,
    unused: BTreeSet<String>,
    missing: Vec<String>,
}

impl CheckpointSource<'_> {
    /// The checkpoint's name of the tensor at a module path, with the layout's prefix or, in a file of the bare decoder,
    /// without.
    fn named(&self, path: &str) -> String {
        self.with_prefix(self.layout.name(path))
    }

    /// A checkpoint's name with the layout's prefix or, in a file of the bare decoder, without.
    fn with_prefix(&self, name: String) -> String {
        match name.strip_prefix(self.layout.prefix) {
            Some(bare) if self.checkpoint.find(&name).is_none() && self.checkpoint.find(bare).is_some() => bare.into(),
            _ => name,
        }
    }

    /// The tensor that the checkpoint calls `name`.
    ///
    /// # Errors
    /// Its shape is another, or its type cannot be loaded. That it is missing is told by [`finish`](Self::finish).
    pub fn named_tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
        self.take(name.into(), shape, As::default())
    }

    fn take<const D: usize>(&mut self, name: String, shape: [usize; D], stored: As) -> Result<Tensor<D>, ModelError> {
        self.unused.remove(&name);
        let tensor = self.checkpoint.read_from(&name, shape, stored, self.options.storage, &self.device)?;
        Ok(tensor.unwrap_or_else(|| {
            // A placeholder, so that `finish` can name all that is missing at once.
            self.missing.push(name);
            Tensor::zeros([1; D], &self.device)
        }))
    }

    /// The matrix at a module path in the blocks that the checkpoint holds it in, all of whose numbers are finite.
    fn packed(&mut self, path: &str, shape: &[usize]) -> Result<Option<packed::Found>, ModelError> {
        let &[out, inputs] = shape else { return Ok(None) };
        let checkpoint = self.checkpoint;
        let file = &checkpoint.path;
        let files = packed::Files(&|name| checkpoint.raw(name));
        let transposed = self.layout.transposed(path);
        let (name, read) = match self.layout.stacked(path) {
            Some((name, part)) => {
                let name = self.with_prefix(name);
                let read = packed::read_mxfp4(&files, &name, part, [out, inputs]);
                (name, read)
            }
            None if transposed => return Ok(None),
            None => {
                let name = self.named(path);
                let read = packed::read(&files, &name, [out, inputs]);
                (name, read)
            }
        };
        let read = read.map_err(|fault| match fault {
            packed::Fault::Shape { name, found, expected } => {
                ModelError::Shape { path: file.clone(), name, found, expected }
            }
            packed::Fault::Other { name, reason } => {
                ModelError::Safetensors { path: file.clone(), reason: format!("tensor `{name}`: {reason}") }
            }
        })?;
        let Some(found) = read else { return Ok(None) };
        if let Some((at, value)) = found.matrix.not_finite() {
            return Err(ModelError::NotFinite { path: file.clone(), name, at, value, stored: "f32" });
        }
        self.unused.retain(|unused| !found.used.contains(unused));
        Ok(Some(found))
    }

    /// The matrix at a module path in the 16-bit floats that the checkpoint holds it in, all of them finite.
    fn halves(&mut self, path: &str, dims: [usize; 2]) -> Result<Option<Packed>, ModelError> {
        let plain = self.layout.stacked(path).is_none() && !self.layout.transposed(path);
        let (checkpoint, name) = (self.checkpoint, self.named(path));
        let files = packed::Files(&|name| checkpoint.raw(name));
        let Some((format, bytes)) = packed::halves(&files, &name, dims).filter(|_| plain) else { return Ok(None) };
        let matrix = Packed::Rows(BlockRows { format, dims, bytes: bytes.to_vec() });
        if let Some((at, value)) = matrix.not_finite() {
            let stored = if format.name == "BF16" { "bf16" } else { "f16" };
            return Err(ModelError::NotFinite { path: checkpoint.path.clone(), name, at, value, stored });
        }
        if let Some((shard, info)) = checkpoint.find(&name) {
            release(&shard.bytes, shard.data_start + info.data_offsets.0, bytes.len());
        }
        self.unused.remove(&name);
        Ok(Some(matrix))
    }

    /// The matrix `[out, in]` at a module path in the blocks or 16-bit floats that the checkpoint holds it in.
    pub(crate) fn in_blocks(&self, path: &str, shape: [usize; 2]) -> Option<StoredBlocks> {
        let files = packed::Files(&|name| self.checkpoint.raw(name));
        match self.layout.stacked(path) {
            Some((name, _)) => packed::mxfp4_size(&files, &self.with_prefix(name), shape),
            None if self.layout.transposed(path) => None,
            None => {
                let name = self.named(path);
                let halves = |(format, bytes): (&Format, &[u8])| StoredBlocks {
                    bytes: bytes.len(),
                    on_card: None,
                    kind: format.name,
                };
                packed::size(&files, &name, shape).or_else(|| packed::halves(&files, &name, shape).map(halves))
            }
        }
    }

    /// Refuses tensors of another number of experts than the model has.
    fn check_experts(&self, spec: &ModelSpec) -> Result<(), ModelError> {
        let Some(experts) = &spec.experts else { return Ok(()) };
        let layers = spec.layers.iter().enumerate().filter(|(_, layer)| layer.experts);
        let parameters = || experts.mlp.projections().iter().flat_map(|name| ["weight", "bias"].map(|of| (name, of)));
        for (layer, (projection, of)) in layers.flat_map(|(layer, _)| parameters().map(move |of| (layer, of))) {
            let path = format!("layers.{layer}.moe.experts.0.{projection}.{of}");
            let Some((name, _)) = self.layout.stacked(&path) else { continue };
            let names = [self.with_prefix(name.clone()), format!("{}_blocks", self.with_prefix(name))];
            let found = names.into_iter().find_map(|name| Some((self.checkpoint.find(&name)?, name)));
            let Some(((shard, info), name)) = found else { continue };
            if info.shape.first() != Some(&experts.count) {
                let mut expected = info.shape.clone();
                expected[0] = experts.count;
                return Err(ModelError::Shape { path: shard.path.clone(), name, found: info.shape.clone(), expected });
            }
        }
        Ok(())
    }

    /// Refuses a checkpoint that lacked tensors or holds others. Rotary buffers and masks, and the
    /// copy of a tied head that some files carry, are derived from other values and may be there.
    ///
    /// # Errors
    /// [`ModelError::MissingTensors`], [`ModelError::UnexpectedTensors`], [`ModelError::TiedHead`]
    pub fn finish(self, spec: &ModelSpec) -> Result<(), ModelError> {
        let path = self.checkpoint.path.clone();
        self.check_experts(spec)?;
        if !self.missing.is_empty() {
            return Err(ModelError::MissingTensors { path, names: self.missing });
        }
        let head = self.layout.name("lm_head.weight");
        if spec.tied && self.unused.contains(&head) {
            let table = self.named("embed_tokens.weight");
            if !self.checkpoint.equal(&head, &table)? {
                return Err(ModelError::TiedHead { path, head, table });
            }
        }
        let derived = |name: &String| self.layout.is_buffer(name) || (spec.tied && *name == head);
        let names: Vec<String> = self.unused.into_iter().filter(|name| !derived(name)).collect();
        if names.is_empty() { Ok(()) } else { Err(ModelError::UnexpectedTensors { path, names }) }
    }
}

impl WeightSource for CheckpointSource<'_> {
    fn tensor<const D: usize>(&mut self, path: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
        if let Some(packed::Found { matrix, dtype, .. }) = self.packed(path, &shape)? {
            let to = self.options.storage.or(Storage::of_file(dtype)).unwrap_or(Storage::F16);
            check_dtype(&self.device, to)?;
            let data = TensorData::new(matrix.values(), shape);
            return Ok(Tensor::from_data(data, (&self.device, to.dtype())));
        }
        let transposed = self.layout.transposed(path);
        match self.layout.stacked(path) {
            Some((name, part)) => {
                self.take(self.with_prefix(name), shape, As { transposed, part: Some(part), scalar: false })
            }
            None => {
                let name = self.named(path);
                let scalar = self.layout.is_scalar(&name);
                self.take(name, shape, As { transposed, part: None, scalar })
            }
        }
    }

    fn kept(&mut self, path: &str, shape: [usize; 2]) -> Result<Option<StoredWeight>, ModelError> {
        if self.options.blocks != Some(Kept::AsStored) {
            return Ok(None);
        }
        let found = match self.packed(path, &shape)? {
            Some(found) => Some(found.matrix),
            None if on_cpu(&self.device) => self.halves(path, shape)?,
            None => None,
        };
        let file = &self.checkpoint.path;
        let unfit = |reason| ModelError::NotOnCards { path: file.clone(), name: path.into(), reason };
        found.map(|matrix| StoredWeight::new(matrix, &self.device).map_err(unfit)).transpose()
    }

    fn blocks(&self) -> Option<BlockBits> {
        self.options.blocks.and_then(Kept::bits)
    }
}
