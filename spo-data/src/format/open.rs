//! Paths to files, and files to uncompressed bytes.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use super::state;
use crate::{DataError, Part, Registry};

const COMPRESSED: [&str; 4] = ["gz", "gzip", "zst", "zstd"];
/// JSON files that describe a data set of the `datasets` library.
const DESCRIPTIONS: [&str; 4] = ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// How the text begins that stands for a large file in a Git repository.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Whether bytes are not a file's own, but those of the text that stands for it in a Git repository.
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(LFS_POINTER)
}

const UNPACK: &str = "unpack it first; .gz and .zst are read as they are";
/// First bytes of files that hold no rows as they are, what they are, and what to do.
const FOREIGN: &[(&[u8], &str, &str)] = &[
    (b"\xfd7zXZ\0", "packed with xz", UNPACK),
    (b"BZh", "packed with bzip2", UNPACK),
    (b"PK\x03\x04", "a zip archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"\x04\x22\x4d\x18", "packed with lz4", UNPACK),
    (b"PAR1", "a Parquet file", "set format = \"parquet\" (--format parquet)"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the data", "fetch the data with `git lfs pull`"),
    (b"<!DOCTYPE", "a web page", "the download went wrong: fetch the file itself"),
    (b"<html", "a web page", "the download went wrong: fetch the file itself"),
    (b"%PDF", "a PDF document", "export its rows as JSON or CSV"),
];
/// Bytes that tell such files.
const FOREIGN_BYTES: u64 = 24;

/// Extension of the data inside: `jsonl` for `a.jsonl.gz`.
pub(crate) fn data_extension(file: &str) -> Option<String> {
    let mut parts = file.rsplit('.');
    let mut last = parts.next()?.to_ascii_lowercase();
    if COMPRESSED.contains(&last.as_str()) {
        last = parts.next()?.to_ascii_lowercase();
    }
    parts.next().map(|_| last)
}

/// What a path, directory or pattern names.
pub(crate) struct Found {
    /// The files to read, sorted.
    pub(crate) files: Vec<PathBuf>,
    /// Files of other splits, by name.
    pub(crate) left_out: Vec<String>,
    /// Caches of the `datasets` library, by name.
    pub(crate) cached: Vec<String>,
}

/// The files that a path, directory or pattern names; of a directory only those of a part.
pub(crate) fn expand(registry: &Registry, pattern: &str, part: Part) -> Result<Found, DataError> {
    let none = || DataError::NoFile { pattern: pattern.to_string() };
    let path = Path::new(pattern);
    let mut files = if path.is_file() {
        vec![path.to_path_buf()]
    } else if path.is_dir() {
        let mut files = Vec::new();
        walk(registry, path, &mut files)?;
        files
    } else {
        let paths = glob::glob(pattern).map_err(|_| none())?;
        paths.filter_map(Result::ok).filter(|path| path.is_file()).collect()
    };
    files.sort();
    // A file that is named is read, whatever it is.
    let (files, cached) = if path.is_file() { (files, vec![]) } else { state::divide(files)? };
    if files.is_empty() {
        return Err(none());
    }
    let (files, left_out) = if path.is_dir() { select(path, files, part) } else { (files, vec![]) };
    let names = |files: Vec<PathBuf>| files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    Ok(Found { files, left_out: names(left_out), cached: names(cached) })
}

/// The files that a path, directory or pattern names, sorted.
///
/// # Errors
/// There are none, or a directory cannot be read.
pub fn files(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    Registry::builtin().files(pattern)
}

/// Whether a directory holds files of both `train` and `test` or `validation`, by name.
///
/// # Errors
/// When the directory cannot be read or holds no data.
pub fn has_splits(directory: &str) -> Result<bool, DataError> {
    Ok(Path::new(directory).is_dir() && !expand(&Registry::builtin(), directory, Part::Test)?.left_out.is_empty())
}

/// Names of splits as words of a file's path, as the Hugging Face hub reads them.
const SPLITS: [&[&str]; 3] =
    [&["train", "training"], &["validation", "valid", "val", "dev"], &["test", "testing", "eval", "evaluation"]];

/// Divides the files of a directory into those of a part and the others.
fn select(directory: &Path, files: Vec<PathBuf>, part: Part) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let split = |file: &Path| {
        let name = file.strip_prefix(directory).unwrap_or(file).to_string_lossy().to_lowercase();
        let words: Vec<&str> = name.split(|letter: char| !letter.is_alphanumeric()).collect();
        SPLITS.iter().position(|names| names.iter().any(|name| words.contains(name)))
    };
    let splits: Vec<Option<usize>> = files.iter().map(|file| split(file)).collect();
    let has = |split| splits.contains(&Some(split));
    let wanted = match part {
        Part::Train if has(0) && (has(1) || has(2)) => 0,
        Part::Test if has(0) && has(2) => 2,
        Part::Test if has(0) && has(1) => 1,
        _ => return (files, vec![]),
    };
    let chosen = splits.iter().map(|split| *split == Some(wanted)).collect::<Vec<_>>();
    let (here, elsewhere): (Vec<_>, Vec<_>) = files.into_iter().zip(chosen).partition(|(_, chosen)| *chosen);
    let paths = |files: Vec<(PathBuf, bool)>| files.into_iter().map(|(file, _)| file).collect();
    (paths(here), paths(elsewhere))
}

/// Data files of a directory and its visible subdirectories; links to directories are not followed.
fn walk(registry: &Registry, directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let failed = |source| DataError::Read { path: directory.to_path_buf(), source };
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || DESCRIPTIONS.contains(&name.as_str()) {
            continue;
        }
        let is_data = data_extension(&name)
            .is_some_and(|ext| registry.formats().iter().any(|format| format.extensions.contains(&ext.as_str())));
        if entry.file_type().map_err(failed)?.is_dir() {
            walk(registry, &entry.path(), files)?;
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
        let failed = |source| DataError::Read { path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut start = Vec::new();
        file.by_ref().take(LFS_POINTER.len() as u64).read_to_end(&mut start).map_err(failed)?;
        if is_lfs_pointer(&start) {
            return Err(DataError::LfsPointer { path: path.into() });
        }
        file.rewind().map_err(failed)?;
        Ok(Self::File(file))
    }

    /// Refuses a file that is something else than Parquet by its first bytes, and stays at its beginning.
    pub(super) fn check_parquet(&mut self, file: &str) -> Result<(), DataError> {
        let mut start = Vec::new();
        match self {
            Self::File(source) => {
                let read = source.by_ref().take(FOREIGN_BYTES).read_to_end(&mut start);
                read.and_then(|_| source.rewind()).map_err(|source| DataError::Read { path: file.into(), source })?;
            }
            Self::Memory(bytes) => start.extend(bytes.iter().take(FOREIGN_BYTES as usize)),
        }
        if start.starts_with(b"PAR1") { Ok(()) } else { refuse_foreign(&start, file) }
    }

    /// The bytes from the first to the last, unpacked if they are gzip or zstd; the name goes into errors.
    ///
    /// # Errors
    /// When it cannot be read, or is packed in another way or no data at all.
    pub fn stream(self, file: &str) -> Result<Box<dyn BufRead>, DataError> {
        match self {
            Self::File(source) => decompress(source, file),
            Self::Memory(bytes) => decompress(Cursor::new(bytes), file),
        }
    }
}

/// Refuses a file that by its first bytes is something else.
fn refuse_foreign(start: &[u8], file: &str) -> Result<(), DataError> {
    match FOREIGN.iter().find(|(magic, _, _)| start.starts_with(magic)) {
        Some((_, what, hint)) => {
            Err(DataError::BadFile { file: file.into(), message: format!("the file is {what}"), hint })
        }
        None => Ok(()),
    }
}

/// Recognises gzip and zstd by their first bytes.
fn decompress(mut source: impl Read + 'static, file: &str) -> Result<Box<dyn BufRead>, DataError> {
    let failed = |source| DataError::Read { path: file.into(), source };
    let mut start = Vec::new();
    source.by_ref().take(FOREIGN_BYTES).read_to_end(&mut start).map_err(failed)?;
    refuse_foreign(&start, file)?;
    let whole = Cursor::new(start.clone()).chain(source);
    Ok(if start.starts_with(&GZIP_MAGIC) {
        Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(whole)))
    } else if start.starts_with(&ZSTD_MAGIC) {
        Box::new(BufReader::new(zstd::Decoder::new(whole).map_err(failed)?))
    } else {
        Box::new(BufReader::new(whole))
    })
}
