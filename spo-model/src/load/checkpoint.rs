//! Memory-mapped safetensors, single or sharded (`model.safetensors.index.json`).

use super::dtype::{Storage, convert};
use super::{LoadOptions, WeightSource};
use crate::decoder::blocks::BlockBits;
use crate::parameters::checkpoint_name;
use crate::{ModelError, ModelSpec};
use burn::tensor::{Device, Tensor, TensorData};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
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
    /// tensors that its shards lack.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        if single.exists() {
            return Self::open_file(&single);
        }
        if !index.exists() {
            return Err(ModelError::MissingFile { dir: dir.into(), file: SINGLE.into() });
        }
        let weight_map = read_index(&index)?;
        let names: BTreeSet<&String> = weight_map.values().collect();
        let shards = names.into_iter().map(|name| Shard::open(&dir.join(name))).collect::<Result<_, _>>()?;
        let checkpoint = Self { path: index.clone(), shards };
        let absent = weight_map.into_keys().filter(|name| checkpoint.find(name).is_none()).collect::<Vec<_>>();
        if !absent.is_empty() {
            return Err(ModelError::MissingTensors { path: index, names: absent });
        }
        Ok(checkpoint)
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

    /// A source of its tensors in the form that `options` names.
    pub fn source(&self, options: LoadOptions, device: &Device) -> CheckpointSource<'_> {
        let unused = self.names();
        CheckpointSource { checkpoint: self, options, device: device.clone(), unused, missing: vec![] }
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
        let Some((shard, info)) = self.find(name) else { return Ok(None) };
        if info.shape != shape {
            return Err(ModelError::Shape {
                path: shard.path.clone(),
                name: name.into(),
                found: info.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        let from = Storage::of_file(info.dtype).ok_or_else(|| ModelError::Dtype {
            path: shard.path.clone(),
            name: name.into(),
            found: format!("{:?}", info.dtype),
        })?;
        let to = storage.unwrap_or(from);
        let (start, end) = info.data_offsets;
        let bytes = &shard.bytes[shard.data_start + start..shard.data_start + end];
        let data = TensorData::from_bytes_vec(convert(bytes, from, to), shape, to.dtype());
        Ok(Some(Tensor::from_data(data, (device, to.dtype()))))
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
        read.ok_or_else(|| ModelError::MissingTensors { path: self.path.clone(), names: vec![name.into()] })
    }

    fn find(&self, name: &str) -> Option<(&Shard, &TensorInfo)> {
        self.shards.iter().find_map(|shard| Some((shard, shard.metadata.info(name)?)))
    }
}

impl Shard {
    fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(|e| ModelError::io(path, e))?;
        // SAFETY: the map is read-only; a file that another process changes meanwhile could give
        // torn weights, as with every memory-mapped loader, but offsets stay within the map.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| ModelError::io(path, e))?;
        Self::parse(path.into(), map)
    }

    fn parse(path: PathBuf, bytes: Mmap) -> Result<Self, ModelError> {
        let (header, metadata) = SafeTensors::read_metadata(&bytes)
            .map_err(|e| ModelError::Safetensors { path: path.clone(), reason: e.to_string() })?;
        Ok(Self { path, bytes, data_start: header + 8, metadata })
    }
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let json = |reason: String| ModelError::Json { file: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|e| ModelError::io(path, e))?;
    let index: Index = serde_json::from_str(&text).map_err(|e| json(e.to_string()))?;
    let outside =
        |file: &&String| Path::new(file).components().count() != 1 || file.contains(['/', '\\']) || *file == "..";
    if let Some(file) = index.weight_map.values().find(outside) {
        return Err(json(format!("weight_map names `{file}`, which is not a file beside the index")));
    }
    Ok(index.weight_map)
}

/// Hands out the tensors of a [`Checkpoint`] and keeps account of those missing and unused.
#[derive(Debug)]
pub struct CheckpointSource<'a> {
    checkpoint: &'a Checkpoint,
    options: LoadOptions,
    device: Device,
    unused: BTreeSet<String>,
    missing: Vec<String>,
}

impl CheckpointSource<'_> {
    /// Refuses a checkpoint that lacked tensors or holds others. Rotary buffers, and the copy of
    /// a tied head that some files carry, are derived from other values and may be there.
    ///
    /// # Errors
    /// [`ModelError::MissingTensors`], [`ModelError::UnexpectedTensors`]
    pub fn finish(self, spec: &ModelSpec) -> Result<(), ModelError> {
        let path = self.checkpoint.path.clone();
        if !self.missing.is_empty() {
            return Err(ModelError::MissingTensors { path, names: self.missing });
        }
        let derived = |name: &String| name.ends_with("rotary_emb.inv_freq") || (spec.tied && name == "lm_head.weight");
        let names: Vec<String> = self.unused.into_iter().filter(|name| !derived(name)).collect();
        if names.is_empty() { Ok(()) } else { Err(ModelError::UnexpectedTensors { path, names }) }
    }
}

impl WeightSource for CheckpointSource<'_> {
    fn tensor<const D: usize>(&mut self, path: &str, shape: [usize; D]) -> Result<Tensor<D>, ModelError> {
        let name = checkpoint_name(path);
        self.unused.remove(&name);
        let tensor = self.checkpoint.read(&name, shape, self.options.storage, &self.device)?;
        Ok(tensor.unwrap_or_else(|| {
            // A placeholder, so that `finish` can name all that is missing at once.
            self.missing.push(name);
            Tensor::zeros([1; D], &self.device)
        }))
    }

    fn blocks(&self) -> Option<BlockBits> {
        self.options.blocks
    }
}
