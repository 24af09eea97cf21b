//! Room on the disk, looked up before something is written.

use crate::TrainError;
use std::path::Path;

/// Bytes that may still be written to the file system on which `path` lies, or will lie; `None` where the system does not
/// say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    fs4::available_space(path.ancestors().find(|path| path.exists())?).ok()
}

/// Refuses to write so many bytes where there is no room for them. `begun` says whether a run can go on afterwards.
pub(crate) fn require(path: &Path, needed: u64, begun: bool) -> Result<(), TrainError> {
    enough(path, needed, free_bytes(path), begun)
}

fn enough(path: &Path, needed: u64, free: Option<u64>, begun: bool) -> Result<(), TrainError> {
    match free.filter(|free| *free < needed) {
        Some(free) => Err(TrainError::NoRoom { path: path.into(), needed, free, begun }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_figures() {
        let out = Path::new("runs/a");
        assert!(enough(out, 5 << 20, Some(5 << 20), false).is_ok());
        assert!(enough(out, 5 << 20, None, false).is_ok(), "a system that does not say");
        let error = enough(out, 5 << 20, Some(3 << 20), false).unwrap_err();
        assert_eq!(error.to_string(), "runs/a: no room on the disk: 5.0 MiB are to be written, 3.0 MiB are free");
        assert!(error.hint().unwrap().contains("--allow disk"));
        let error = enough(out, 5 << 20, Some(0), true).unwrap_err();
        assert!(error.hint().unwrap().contains("--resume"));
    }

    #[test]
    fn free_room_is_known_before_the_directory_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let free = free_bytes(&dir.path().join("not/yet/there")).unwrap();
        assert!(free > 0 && require(&dir.path().join("there"), u64::MAX, false).is_err());
        assert!(free_bytes(Path::new("relative")).is_some());
    }
}
