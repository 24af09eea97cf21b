//! Tokenised datasets on disk, so that the same files are tokenised once.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::format::open;
use crate::load::load;
use crate::{DataError, DataSpec, Dataset, TextSpec, Tokenizer};

/// Changes with everything that changes what loading makes of the same input.
const VERSION: &str = "spo-data tokens v2";

/// As [`load`], but takes the dataset from `directory` if these files were loaded with the same tokenizer
/// and settings before, and leaves it there otherwise; the flag says which.
///
/// An entry is keyed by the content of the files, the tokenizer's files, both specs and this format's
/// version. A damaged entry is loaded anew.
///
/// # Errors
/// As [`load`], and when the directory cannot be written.
pub fn load_cached(
    specs: &[DataSpec],
    text: &TextSpec,
    tokenizer: &Tokenizer,
    directory: &Path,
    progress: &mut dyn FnMut(usize),
) -> Result<(Dataset, bool), DataError> {
    let path = directory.join(format!("{}.tokens", key(specs, text, tokenizer)?));
    if let Some(dataset) = read(&path) {
        progress(dataset.report.rows());
        return Ok((dataset, true));
    }
    let dataset = load(specs, text, tokenizer, progress)?;
    write(directory, &path, &dataset)?;
    Ok((dataset, false))
}

fn key(specs: &[DataSpec], text: &TextSpec, tokenizer: &Tokenizer) -> Result<String, DataError> {
    let mut hasher = blake3::Hasher::new_derive_key(VERSION);
    let settings = serde_json::json!([specs, text, tokenizer.fingerprint()]);
    hasher.update(settings.to_string().as_bytes());
    for pattern in specs.iter().flat_map(|spec| spec.path.as_slice()) {
        for path in open::expand(pattern)? {
            let mut content = blake3::Hasher::new();
            let failed = |source| DataError::Read { path: path.clone(), source };
            content.update_reader(File::open(&path).map_err(failed)?).map_err(failed)?;
            hasher.update(blake3::hash(path.to_string_lossy().as_bytes()).as_bytes());
            hasher.update(content.finalize().as_bytes());
        }
    }
    Ok(hasher.finalize().to_hex()[..32].to_string())
}

/// The dataset of an entry; `None` if there is none or it does not match its checksum.
fn read(path: &Path) -> Option<Dataset> {
    let bytes = std::fs::read(path).ok()?;
    let (checksum, body) = bytes.split_at_checked(blake3::OUT_LEN)?;
    if blake3::hash(body).as_bytes() != checksum {
        return None;
    }
    serde_json::from_reader(BufReader::new(zstd::Decoder::new(body).ok()?)).ok()
}

/// Writes beside the entry, syncs, then renames: a reader never sees half an entry.
fn write(directory: &Path, path: &Path, dataset: &Dataset) -> Result<(), DataError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source: std::io::Error| DataError::Write { path, source }
    };
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    let body = compress(dataset).map_err(failed(path))?;
    let part: PathBuf = path.with_extension(format!("{}.part", std::process::id()));
    let store = || {
        let mut file = File::create(&part)?;
        file.write_all(blake3::hash(&body).as_bytes())?;
        file.write_all(&body)?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    store().map_err(|source| {
        // The error of the write is the one to report.
        let _ = std::fs::remove_file(&part);
        failed(path)(source)
    })
}

fn compress(dataset: &Dataset) -> std::io::Result<Vec<u8>> {
    let mut writer = BufWriter::new(zstd::Encoder::new(Vec::new(), 1)?);
    serde_json::to_writer(&mut writer, dataset)?;
    writer.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_used_until_anything_changes() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, data) = (directory.path().join("cache"), directory.path().join("a.jsonl"));
        let rows = b"{\"prompt_ids\":[1],\"chosen_ids\":[2],\"rejected_ids\":[3]}\n";
        std::fs::write(&data, rows).unwrap();
        let specs = [DataSpec::new(data.to_string_lossy())];
        let tokenizer = Tokenizer::ids_only();
        let load = |text: &TextSpec| load_cached(&specs, text, &tokenizer, &cache, &mut |_| ()).unwrap();
        let plain = TextSpec::default();
        let (first, hit) = load(&plain);
        assert!(!hit);
        let (again, hit) = load(&plain);
        assert!(hit);
        assert_eq!(first, again);
        assert!(!load(&TextSpec { max_length: Some(9), ..TextSpec::default() }).1);
        for entry in std::fs::read_dir(&cache).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
        assert!(!load(&plain).1, "damaged entries are not used");
        assert!(load(&plain).1);
        std::fs::write(&data, [&rows[..], rows].concat()).unwrap();
        let (more, hit) = load(&plain);
        assert_eq!((more.examples.len(), hit), (2, false));
        std::fs::remove_dir_all(&cache).unwrap();
        std::fs::write(&cache, "a file").unwrap();
        let failed = load_cached(&specs, &plain, &tokenizer, &cache, &mut |_| ());
        assert!(matches!(failed, Err(DataError::Write { .. })));
    }
}
