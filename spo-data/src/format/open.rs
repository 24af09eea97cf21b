//! Files to uncompressed bytes.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

use crate::DataError;
use crate::lfs::{LFS_POINTER, is_lfs_pointer};

const COMPRESSED: [&str; 4] = ["gz", "gzip", "zst", "zstd"];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
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
