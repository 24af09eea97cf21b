//! Paths to files, and files to uncompressed bytes.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use super::FORMATS;
use crate::DataError;

const COMPRESSED: [&str; 4] = ["gz", "gzip", "zst", "zstd"];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Extension of the data inside: `jsonl` for `a.jsonl.gz`.
pub(crate) fn data_extension(file: &str) -> Option<String> {
    let mut parts = file.rsplit('.');
    let mut last = parts.next()?.to_ascii_lowercase();
    if COMPRESSED.contains(&last.as_str()) {
        last = parts.next()?.to_ascii_lowercase();
    }
    parts.next().map(|_| last)
}

/// The files that a path, directory or pattern names, sorted.
pub(crate) fn expand(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let none = || DataError::NoFile { pattern: pattern.to_string() };
    let path = Path::new(pattern);
    let mut files = if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    } else if path.is_dir() {
        let mut files = Vec::new();
        walk(path, &mut files)?;
        files
    } else {
        let paths = glob::glob(pattern).map_err(|_| none())?;
        paths.filter_map(Result::ok).filter(|path| path.is_file()).collect()
    };
    files.sort();
    if files.is_empty() { Err(none()) } else { Ok(files) }
}

/// Data files of a directory and its visible subdirectories; links to directories are not followed.
fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let failed = |source| DataError::Read { path: directory.to_path_buf(), source };
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let is_data = data_extension(&name)
            .is_some_and(|ext| FORMATS.iter().any(|format| format.extensions.contains(&ext.as_str())));
        if entry.file_type().map_err(failed)?.is_dir() {
            walk(&entry.path(), files)?;
        } else if is_data {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// A file's bytes, on disk or in memory.
pub enum Input {
    /// An open file.
    File(File),
    /// Its whole content.
    Memory(Vec<u8>),
}

impl Input {
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        File::open(path).map(Self::File).map_err(|source| DataError::Read { path: path.to_path_buf(), source })
    }

    /// The bytes from the first to the last, unpacked if they are gzip or zstd; the name goes into errors.
    pub(super) fn stream(self, file: &str) -> Result<Box<dyn BufRead>, DataError> {
        match self {
            Self::File(source) => decompress(source, file),
            Self::Memory(bytes) => decompress(Cursor::new(bytes), file),
        }
    }
}

/// Recognises gzip and zstd by their first bytes.
fn decompress(mut source: impl Read + 'static, file: &str) -> Result<Box<dyn BufRead>, DataError> {
    let failed = |source| DataError::Read { path: file.into(), source };
    let mut start = Vec::new();
    source.by_ref().take(4).read_to_end(&mut start).map_err(failed)?;
    let whole = Cursor::new(start.clone()).chain(source);
    Ok(if start.starts_with(&GZIP_MAGIC) {
        Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(whole)))
    } else if start.starts_with(&ZSTD_MAGIC) {
        Box::new(BufReader::new(zstd::Decoder::new(whole).map_err(failed)?))
    } else {
        Box::new(BufReader::new(whole))
    })
}
