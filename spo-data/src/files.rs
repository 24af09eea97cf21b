//! Paths, directories and patterns to files.

use std::path::{Path, PathBuf};

use crate::format::{data_extension, divide};
use crate::{DataError, Part, Registry};

/// JSON files that describe a data set of the `datasets` library.
const DESCRIPTIONS: [&str; 4] = ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];

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
    let (files, cached) = if path.is_file() { (files, vec![]) } else { divide(files)? };
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

impl Registry {
    /// The files that a path, directory or pattern names, sorted.
    ///
    /// # Errors
    /// There are none, or a directory cannot be read.
    pub fn files(&self, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
        Ok(expand(self, pattern, Part::All)?.files)
    }
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
