//! Which Arrow files of a directory that `datasets` wrote are data, and which are its caches.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::DataError;

/// Divides files into data and caches, by the `state.json` or `dataset_info.json` beside each.
///
/// `state.json` of `save_to_disk` names the data files; where only `dataset_info.json` is there, as in the directory of
/// downloaded data sets, `cache-….arrow` is what a map or shuffle left.
pub(crate) fn divide(files: Vec<PathBuf>) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DataError> {
    let (mut data, mut caches) = (Vec::new(), Vec::new());
    let mut known: Option<(PathBuf, Option<Vec<String>>)> = None;
    for file in files {
        let is_arrow = file.extension().is_some_and(|extension| extension == "arrow");
        let (Some(directory), true) = (file.parent(), is_arrow) else {
            data.push(file);
            continue;
        };
        if known.as_ref().is_none_or(|(of, _)| of != directory) {
            known = Some((directory.to_path_buf(), named(directory)?));
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_data = match known.as_ref().and_then(|(_, names)| names.as_ref()) {
            Some(names) => names.contains(&name),
            None => !(name.starts_with("cache-") && directory.join("dataset_info.json").exists()),
        };
        if is_data { data.push(file) } else { caches.push(file) }
    }
    Ok((data, caches))
}

/// The data files that a `state.json` names; `None` where there is none or it names none.
fn named(directory: &Path) -> Result<Option<Vec<String>>, DataError> {
    let path = directory.join("state.json");
    let Ok(bytes) = std::fs::read(&path) else { return Ok(None) };
    let state: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let Some(list) = state.get("_data_files").and_then(Value::as_array) else { return Ok(None) };
    let name = |file: &Value| Some(file.get("filename")?.as_str()?.to_string());
    let names: Vec<String> = list.iter().filter_map(name).collect();
    match names.iter().find(|name| !directory.join(name).is_file()) {
        None => Ok(Some(names)),
        Some(missing) => Err(DataError::BadFile {
            file: path.to_string_lossy().into_owned(),
            message: format!("names the data file {missing:?}, which is not there"),
            hint: "the data set is incomplete: copy or save it anew",
        }),
    }
}
