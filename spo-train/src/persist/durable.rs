//! Files that are either there as a whole or not at all, and proof that they still are what was written.

use crate::TrainError;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// What a file, or its beginning, must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The file, relative to the run directory.
    pub path: PathBuf,
    /// Bytes that count; there may be more behind them.
    pub bytes: u64,
    /// Their blake3, in hex.
    pub blake3: String,
}

impl Mark {
    /// The whole file as it is now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(out: &Path, path: &Path) -> Result<Self, TrainError> {
        let full = out.join(path);
        let (bytes, hasher) = hash_start(&full, u64::MAX).map_err(|e| TrainError::io(&full, e))?;
        Ok(Self { path: path.into(), bytes, blake3: hasher.finalize().to_hex().to_string() })
    }

    /// A file, or every file below a directory, in order of their names.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn all(out: &Path, path: &Path) -> Result<Vec<Self>, TrainError> {
        let full = out.join(path);
        let files = if full.is_dir() { files(&full)? } else { vec![full] };
        files.iter().map(|path| Self::of(out, path.strip_prefix(out).unwrap_or(path))).collect()
    }

    /// Why the file does not hold that any more, if it does not.
    ///
    /// # Errors
    /// It is there and cannot be read: nothing is known of what it holds.
    pub fn fault(&self, out: &Path) -> Result<Option<String>, TrainError> {
        let path = out.join(&self.path);
        let shown = path.display();
        Ok(match hash_start(&path, self.bytes) {
            Err(e) if e.kind() == ErrorKind::NotFound => Some(format!("{shown} is missing")),
            Err(e) => return Err(TrainError::io(&path, e)),
            Ok((bytes, _)) if bytes < self.bytes => {
                Some(format!("{shown} has {bytes} bytes, {} were written", self.bytes))
            }
            Ok((_, hasher)) if hasher.finalize().to_hex().as_str() != self.blake3 => {
                Some(format!("{shown} is damaged: its bytes are not those that were written"))
            }
            Ok(_) => None,
        })
    }
}

/// Reads at most `limit` bytes of a file: how many there were, and their hash so far.
pub(crate) fn hash_start(path: &Path, limit: u64) -> std::io::Result<(u64, blake3::Hasher)> {
    let mut file = File::open(path)?.take(limit);
    let (mut hasher, mut buffer, mut bytes) = (blake3::Hasher::new(), vec![0; 1 << 16], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, hasher)),
            read => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

/// All files below a directory, sorted.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let mut found = vec![];
    for entry in std::fs::read_dir(dir).map_err(|e| TrainError::io(dir, e))? {
        let path = entry.map_err(|e| TrainError::io(dir, e))?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    found.sort();
    Ok(found)
}

/// Writes a file aside, syncs it, and renames it into place: a reader sees the old one or the new one.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let aside = path.with_added_extension("part");
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    };
    write().map_err(|e| {
        let _ = std::fs::remove_file(&aside);
        TrainError::io(path, e)
    })?;
    sync_parent(path)
}

/// The file of a sealed directory that says what its other files hold.
const SEAL: &str = "checksums.json";

/// Seals a directory: says in it what its files hold.
pub(crate) fn seal(dir: &Path) -> Result<(), TrainError> {
    let marks = Mark::all(dir, Path::new(""))?;
    write(&dir.join(SEAL), serde_json::to_string_pretty(&marks).expect("marks are plain data").as_bytes())
}

/// What is wrong with a sealed directory, if anything is.
///
/// # Errors
/// A file cannot be read.
pub fn seal_fault(dir: &Path) -> Result<Option<String>, TrainError> {
    let path = dir.join(SEAL);
    let bytes = match std::fs::read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Some(format!("{} is missing", path.display()))),
        read => read.map_err(|e| TrainError::io(&path, e))?,
    };
    let Ok(marks) = serde_json::from_slice::<Vec<Mark>>(&bytes) else {
        return Ok(Some(format!("{} is damaged", path.display())));
    };
    marks.iter().find_map(|mark| mark.fault(dir).transpose()).transpose()
}

/// Puts a directory that was written aside in the place of another one, if there is one.
pub(crate) fn replace_dir(aside: &Path, dir: &Path) -> Result<(), TrainError> {
    for file in files(aside)? {
        sync(&file)?;
    }
    sync(aside)?;
    let replace = || {
        match std::fs::remove_dir_all(dir) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::fs::rename(aside, dir)
    };
    replace().map_err(|e| TrainError::io(dir, e))?;
    sync_parent(dir)
}

/// Gives a run the files of another one's directory: as links where the system can, else as copies.
pub(crate) fn link_files(from: &Path, to: &Path) -> Result<(), TrainError> {
    std::fs::create_dir_all(to).map_err(|e| TrainError::io(to, e))?;
    for entry in std::fs::read_dir(from).map_err(|e| TrainError::io(from, e))? {
        let path = entry.map_err(|e| TrainError::io(from, e))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            link_files(&path, &target)?;
        } else if std::fs::hard_link(&path, &target).is_err() {
            std::fs::copy(&path, &target).map_err(|e| TrainError::io(&target, e))?;
        }
    }
    Ok(())
}

/// Makes a rename, a new file or a removal in the file's directory last.
pub(crate) fn sync_parent(path: &Path) -> Result<(), TrainError> {
    // Of a bare name the parent is empty: the working directory.
    path.parent().map_or(Ok(()), |parent| sync(if parent == Path::new("") { Path::new(".") } else { parent }))
}

/// Makes what was written to a file or directory last. Directories cannot be synced on Windows.
pub(crate) fn sync(path: &Path) -> Result<(), TrainError> {
    if cfg!(windows) && path.is_dir() {
        return Ok(());
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| TrainError::io(path, e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_knows_a_flipped_byte_a_cut_and_what_came_later() {
        let out = tempfile::tempdir().unwrap();
        let (name, path) = (Path::new("a.bin"), out.path().join("a.bin"));
        write(&path, b"0123456789").unwrap();
        let mark = Mark::of(out.path(), name).unwrap();
        let fault = || mark.fault(out.path()).unwrap();
        assert_eq!((mark.bytes, fault()), (10, None));
        write(&path, b"0123456789 and more").unwrap();
        assert_eq!(fault(), None);
        write(&path, b"012345678X").unwrap();
        assert!(fault().unwrap().contains("damaged"));
        write(&path, b"01234").unwrap();
        assert!(fault().unwrap().contains("has 5 bytes, 10 were written"));
        std::fs::remove_file(&path).unwrap();
        assert!(fault().unwrap().contains("missing"));
    }
}
