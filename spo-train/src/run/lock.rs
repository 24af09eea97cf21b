//! One process at a time in a run directory.

use crate::TrainError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// Held while a process runs in a run directory; the system lets go of it when the process ends,
/// however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the directory, which must exist.
    ///
    /// # Errors
    /// Another process has it.
    pub fn take(out: &Path) -> Result<Self, TrainError> {
        let path = out.join("lock");
        let failed = |e| TrainError::io(&path, e);
        let mut file = open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // A message only: on some systems a locked file cannot be read.
                let _ = file.read_to_string(&mut holder);
                return Err(TrainError::Locked { out: out.into(), holder: holder.trim().into() });
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        let own = format!("process {}\n", std::process::id());
        let note = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(own.as_bytes())
        };
        note(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }

    /// Takes the directory once no other process has it.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(out: &Path) -> Result<Self, TrainError> {
        let path = out.join("lock");
        let file = open(&path)?;
        file.lock().map_err(|e| TrainError::io(&path, e))?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> Result<File, TrainError> {
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
    open.map_err(|e| TrainError::io(path, e))
}
