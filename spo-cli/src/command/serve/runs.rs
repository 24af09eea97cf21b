//! The run directories that are shown, and the files in them that may be read.

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use crate::error::CliError;

/// The file that makes a directory a run.
pub(super) const EVENTS: &str = "events.jsonl";
/// How deep runs are looked for below a directory.
const DEPTH: usize = 3;

/// Directories from the command line.
pub(super) struct Runs {
    roots: Vec<PathBuf>,
}

/// A run that is there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    /// Stable while the program runs.
    pub id: String,
    /// The directory as a person knows it.
    pub name: String,
    /// Canonical.
    pub path: PathBuf,
}

impl Runs {
    /// # Errors
    /// A directory that does not exist or holds no run.
    pub fn new(given: &[PathBuf]) -> Result<Self, CliError> {
        let canonical = |path: &PathBuf| fs::canonicalize(path).map_err(|source| CliError::io(path, source));
        let runs = Self { roots: given.iter().map(canonical).collect::<Result<_, _>>()? };
        for (root, given) in runs.roots.iter().zip(given) {
            if found(root, DEPTH).is_empty() {
                return Err(CliError::NoRun { path: given.clone() });
            }
        }
        Ok(runs)
    }

    /// The runs that are there now, so that those of a sweep appear as they start.
    pub fn list(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = vec![];
        for root in &self.roots {
            for path in found(root, DEPTH) {
                let below = path.strip_prefix(root).unwrap_or(&path);
                let name = root.file_name().map(Path::new).unwrap_or(root).join(below);
                let id = blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex()[..16].to_string();
                let run = Run { id, name: tidy(&name), path };
                if !runs.contains(&run) {
                    runs.push(run);
                }
            }
        }
        runs
    }

    pub fn get(&self, id: &str) -> Option<Run> {
        self.list().into_iter().find(|run| run.id == id)
    }
}

impl Run {
    /// Opens a file of the run directory: nothing outside of it, also not through `..`, a link or an absolute path.
    pub fn open(&self, name: &str) -> Option<File> {
        let name = Path::new(name);
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            return None;
        }
        let path = fs::canonicalize(self.path.join(name)).ok()?;
        if !path.starts_with(&self.path) || !path.is_file() {
            return None;
        }
        File::open(path).ok()
    }
}

fn tidy(path: &Path) -> String {
    path.components().collect::<PathBuf>().to_string_lossy().into_owned()
}

/// Run directories at `path` or below it, sorted. Links are not followed: what is shown lies below what was named.
fn found(path: &Path, depth: usize) -> Vec<PathBuf> {
    if path.join(EVENTS).is_file() {
        return vec![path.to_owned()];
    }
    let directories = |entry: fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| entry.path());
    let mut below: Vec<PathBuf> = match fs::read_dir(path) {
        Ok(entries) if depth > 0 => entries.flatten().filter_map(directories).collect(),
        _ => vec![],
    };
    below.sort();
    below.iter().flat_map(|path| found(path, depth - 1)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_files_of_the_run_can_be_opened() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("runs/a");
        fs::create_dir_all(run.join("policies")).unwrap();
        fs::write(run.join(EVENTS), "").unwrap();
        fs::write(run.join("policies/hash"), "1").unwrap();
        fs::write(dir.path().join("secret"), "2").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(dir.path().join("secret"), run.join("link")).unwrap();
        let runs = Runs::new(&[dir.path().join("runs")]).unwrap();
        let [run] = &runs.list()[..] else { panic!("one run") };
        assert_eq!(run.name, "runs/a");
        assert_eq!(runs.get(&run.id), Some(run.clone()));
        assert!(run.open("events.jsonl").is_some() && run.open("policies/hash").is_some());
        let absolute = dir.path().join("secret");
        for refused in [
            "../../secret",
            "policies/../../../secret",
            "link",
            absolute.to_str().unwrap(),
            "policies",
            "",
            ".",
            "none",
        ] {
            assert!(run.open(refused).is_none(), "{refused}");
        }
        assert!(matches!(Runs::new(&[dir.path().join("runs/a/policies")]), Err(CliError::NoRun { .. })));
        assert!(matches!(Runs::new(&[dir.path().join("absent")]), Err(CliError::Io { .. })));
    }
}
