//! Reading GGUF, the file of llama.cpp and its relatives: metadata, tensors and tokenizer in one.
//!
//! Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian; whole or split
//! into parts. Nothing in a file is believed: lengths are checked against its bytes before memory is taken for them.

mod header;
mod metadata;
mod parts;
mod split;
mod tokenizer;

pub use header::{Header, Info, Value, read_header};
pub use split::{SPLITS, Split, Steps, Unnamed};
pub use tokenizer::tokenizer_files;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapMut};

pub use crate::error::GgufError;
use crate::lfs::is_lfs_pointer;

const DAMAGED: &str = "the file may be cut off or damaged: copy or download it again";
const LFS: &str =
    "only the text that stands for it in a Git repository is there: `git lfs pull` in its directory fetches it";
const OTHER: &str = "name a GGUF file, or a Hugging Face model directory: config.json, *.safetensors, tokenizer.json";

/// A fault without its file: place and reason.
pub type Fault = (String, String);

/// An opened file with all its parts.
#[derive(Debug)]
pub struct Gguf {
    parts: Vec<Part>,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, (usize, Info)>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    bytes: Mmap,
    data: usize,
}

/// A tensor's bytes in the file.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a> {
    /// The whole part of the file, for advice to the system.
    pub part: &'a Mmap,
    /// Where the tensor begins in it.
    pub start: usize,
    /// The tensor alone.
    pub bytes: &'a [u8],
}

/// Whether a path names a GGUF file and not a model directory.
pub fn is_gguf(path: &Path) -> bool {
    path.is_file() || (!path.is_dir() && path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")))
}

impl Gguf {
    /// Opens a file, and its other parts where it is split.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or a part is missing.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let (part, header) = Part::open(path)?;
        let mut file = Self { parts: vec![], metadata: header.metadata, tensors: BTreeMap::new() };
        file.add(part, header.tensors)?;
        for path in parts::others(&file)? {
            let (part, header) = Part::open(&path)?;
            file.add(part, header.tensors)?;
        }
        parts::check(&file)?;
        Ok(file)
    }

    /// A file in memory, called `path` in errors; it must not be split.
    ///
    /// # Errors
    /// As [`open`](Self::open), or there is no memory.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, GgufError> {
        let failed = |error: std::io::Error| GgufError {
            path: path.into(),
            place: "cannot be kept in memory".into(),
            reason: error.to_string(),
            hint: None,
        };
        let mut map = MmapMut::map_anon(bytes.len().max(1)).map_err(failed)?;
        map[..bytes.len()].copy_from_slice(bytes);
        let (part, header) = Part::read(path, map.make_read_only().map_err(failed)?, bytes.len())?;
        let mut file = Self { parts: vec![], metadata: header.metadata, tensors: BTreeMap::new() };
        file.add(part, header.tensors)?;
        parts::check(&file)?;
        Ok(file)
    }

    fn add(&mut self, part: Part, tensors: Vec<(String, Info)>) -> Result<(), GgufError> {
        let index = self.parts.len();
        let path = part.path.clone();
        self.parts.push(part);
        for (name, info) in tensors {
            if self.tensors.contains_key(&name) {
                let (place, reason) = (format!("tensor `{name}`"), "is there twice".into());
                return Err(GgufError { path, place, reason, hint: None });
            }
            self.tensors.insert(name, (index, info));
        }
        Ok(())
    }

    /// The file, the first one where there are several.
    pub fn path(&self) -> &Path {
        &self.parts[0].path
    }

    /// All files of the model.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| part.path.as_path())
    }

    /// Names of the tensors, sorted.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Info> {
        self.tensors.get(name).map(|(_, info)| info)
    }

    /// The first `length` bytes of a tensor.
    ///
    /// # Errors
    /// There is none of this name, or the file ends before.
    pub fn bytes(&self, name: &str, length: usize) -> Result<Bytes<'_>, GgufError> {
        let Some((part, info)) = self.tensors.get(name) else {
            return Err(self.error(format!("tensor `{name}`"), "is missing"));
        };
        let part = &self.parts[*part];
        let start = part.data.checked_add(info.offset);
        let range = start.and_then(|start| Some(start..start.checked_add(length)?));
        match range.clone().and_then(|range| part.bytes.get(range)) {
            Some(bytes) => Ok(Bytes { part: &part.bytes, start: range.map_or(0, |range| range.start), bytes }),
            None => Err(GgufError {
                path: part.path.clone(),
                place: format!("tensor `{name}`"),
                reason: format!(
                    "its {length} bytes from {} on lie outside the {} of the file",
                    part.data.saturating_add(info.offset),
                    part.bytes.len()
                ),
                hint: Some(DAMAGED),
            }),
        }
    }

    /// An error in this file.
    pub fn error(&self, place: impl Into<String>, reason: impl Into<String>) -> GgufError {
        GgufError { path: self.path().into(), place: place.into(), reason: reason.into(), hint: None }
    }
}

impl Part {
    fn open(path: &Path) -> Result<(Self, Header), GgufError> {
        let failed = |error: std::io::Error| {
            let (place, reason) = ("cannot be read".into(), error.to_string());
            GgufError { path: path.into(), place, reason, hint: Some(OTHER) }
        };
        let file = File::open(path).map_err(failed)?;
        // SAFETY: the map is read-only; a file that another process changes meanwhile could give torn weights, as with
        // every memory-mapped loader, but offsets stay within the map.
        let bytes = unsafe { Mmap::map(&file) }.map_err(failed)?;
        let length = bytes.len();
        Self::read(path, bytes, length)
    }

    /// Reads the header of the first `length` bytes.
    fn read(path: &Path, bytes: Mmap, length: usize) -> Result<(Self, Header), GgufError> {
        let header = read_header(&bytes[..length]).map_err(|(place, reason)| {
            let hint = match &bytes[..length] {
                bytes if is_lfs_pointer(bytes) => LFS,
                bytes if bytes.starts_with(&header::MAGIC) => DAMAGED,
                _ => OTHER,
            };
            GgufError { path: path.into(), place, reason, hint: Some(hint) }
        })?;
        Ok((Self { path: path.into(), data: header.data, bytes }, header))
    }
}
