//! Tokenised datasets on disk, so that the same files are tokenised once.
//!
//! An entry is a checksum, the number of ids, the ids (which stay in the file and are mapped), and the rest of the
//! examples as compressed JSON lines after a line with the report.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Error, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use crate::files::expand;
use crate::load::Shared;
use crate::{
    DataError, DataSpec, Dataset, Example, LoadReport, Preference, Registry, SourceRow, TextSpec, Tokenizer, Tokens,
};

/// Changes with everything that changes what loading makes of the same input.
const VERSION: &str = "spo-data tokens v4";
const COUNT_AT: usize = blake3::OUT_LEN;
const IDS_AT: usize = COUNT_AT + 8;
/// Bytes that a line may unpack to: the report has one for every row that something happened to.
const MAX_LINE_BYTES: u64 = 1 << 30;

/// As [`crate::load`], but takes the dataset from `directory` if these files were loaded with the same tokenizer
/// and settings before, and leaves it there otherwise; the flag says which.
///
/// An entry is keyed by the content of the files, the tokenizer's files, both specs and this format's
/// version. A damaged entry is loaded anew. The ids of an entry are mapped: do not cut its file short while in use.
///
/// # Errors
/// As [`crate::load`], and when the directory cannot be written.
pub fn load_cached(
    specs: &[DataSpec],
    text: &TextSpec,
    tokenizer: &Tokenizer,
    directory: &Path,
    progress: &mut dyn FnMut(usize),
) -> Result<(Dataset, bool), DataError> {
    Registry::builtin().load_cached(specs, text, tokenizer, directory, progress)
}

impl Registry {
    /// As [`crate::load_cached`]. The names of the entries are part of the key: give an entry that reads otherwise than
    /// before another name.
    ///
    /// # Errors
    /// As [`crate::load_cached`].
    pub fn load_cached(
        &self,
        specs: &[DataSpec],
        text: &TextSpec,
        tokenizer: &Tokenizer,
        directory: &Path,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Dataset, bool), DataError> {
        let path = directory.join(format!("{}.tokens", key(self, specs, text, tokenizer)?));
        if let Some(dataset) = read(&path) {
            progress(dataset.report.rows());
            return Ok((dataset, true));
        }
        let dataset = self.load(specs, text, tokenizer, progress)?;
        write(directory, &path, &dataset)?;
        Ok((dataset, false))
    }
}

fn key(registry: &Registry, specs: &[DataSpec], text: &TextSpec, tokenizer: &Tokenizer) -> Result<String, DataError> {
    let mut hasher = blake3::Hasher::new_derive_key(VERSION);
    let schemas: Vec<&str> = registry.schemas().iter().map(|schema| schema.name).collect();
    let formats: Vec<&str> = registry.formats().iter().map(|format| format.name).collect();
    let settings = serde_json::json!([specs, text, tokenizer.fingerprint(), schemas, formats]);
    hasher.update(settings.to_string().as_bytes());
    // What a program adds to a spec's meta-prompts, which say nothing of it; without any the key is as it was before them.
    let layouts: Vec<_> = specs.iter().filter_map(|spec| Some(&spec.meta_prompts.as_ref()?.layout)).collect();
    if !layouts.is_empty() {
        hasher.update(serde_json::json!(layouts).to_string().as_bytes());
    }
    for spec in specs {
        for pattern in spec.path.as_slice() {
            for path in expand(registry, pattern, spec.part)?.files {
                let mut content = blake3::Hasher::new();
                let failed = |source| DataError::Read { path: path.clone(), source };
                content.update_reader(File::open(&path).map_err(failed)?).map_err(failed)?;
                hasher.update(blake3::hash(path.to_string_lossy().as_bytes()).as_bytes());
                hasher.update(content.finalize().as_bytes());
            }
        }
    }
    Ok(hasher.finalize().to_hex()[..32].to_string())
}

/// An example without its ids.
#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    prompt: usize,
    answers: Vec<usize>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, Preference>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    scores: BTreeMap<String, Vec<f32>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    safe: Vec<bool>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<SourceRow>,
}

/// The dataset of an entry; `None` if there is none or it does not match its checksum.
fn read(path: &Path) -> Option<Dataset> {
    // SAFETY: entries are renamed into place when complete and never written again.
    let map = Arc::new(unsafe { Mmap::map(&File::open(path).ok()?).ok()? });
    if blake3::hash(map.get(COUNT_AT..)?).as_bytes()[..] != map[..COUNT_AT] {
        return None;
    }
    let count = usize::try_from(u64::from_le_bytes(map.get(COUNT_AT..IDS_AT)?.try_into().ok()?)).ok()?;
    let lines = map.get(IDS_AT.checked_add(count.checked_mul(4)?)?..)?;
    let mut lines = BufReader::new(zstd::Decoder::new(lines).ok()?);
    let report: LoadReport = serde_json::from_slice(&next_line(&mut lines)?).ok()?;
    let mut shared = Shared::default();
    let mut start = 0usize;
    let mut take = |len: usize| -> Option<Tokens> {
        let end = start.checked_add(len).filter(|end| *end <= count)?;
        Tokens::mapped(&map, IDS_AT, std::mem::replace(&mut start, end), len)
    };
    let mut examples = Vec::new();
    loop {
        let line = next_line(&mut lines)?;
        if line.is_empty() {
            break;
        }
        let Line { id, prompt, answers, labels, scores, safe, tags, source } = serde_json::from_slice(&line).ok()?;
        let prompt = take(prompt)?;
        let answers = answers.into_iter().map(&mut take).collect::<Option<_>>()?;
        let (labels, tags) = (labels.into(), tags.into());
        let mut example = Example { id, prompt, answers, labels, scores, safe, tags, source };
        shared.share(&mut example);
        examples.push(example);
    }
    Some(Dataset { examples, report })
}

/// A line with its end, empty at the end of the file; `None` where it cannot be read or never ends.
fn next_line(lines: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = lines.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).ok()?;
    ((read as u64) < MAX_LINE_BYTES).then_some(line)
}

/// Writes beside the entry, syncs, then renames: a reader never sees half an entry.
fn write(directory: &Path, path: &Path, dataset: &Dataset) -> Result<(), DataError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source: Error| DataError::Write { path, source }
    };
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    let part: PathBuf = path.with_extension(format!("{}.part", std::process::id()));
    let store = || {
        let mut file = File::create(&part)?;
        file.write_all(&[0; blake3::OUT_LEN])?;
        let checksum = write_body(&file, dataset)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(checksum.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    store().map_err(|source| {
        // The error of the write is the one to report.
        let _ = std::fs::remove_file(&part);
        failed(path)(source)
    })
}

/// Writes what follows the checksum and returns the checksum.
fn write_body(file: &File, dataset: &Dataset) -> Result<blake3::Hash, Error> {
    let mut body = Hashed { writer: BufWriter::new(file), hasher: blake3::Hasher::new() };
    let count: usize = dataset.examples.iter().map(Example::tokens).sum();
    body.write_all(&(count as u64).to_le_bytes())?;
    for example in &dataset.examples {
        example.prompt.write(&mut body)?;
        example.answers.iter().try_for_each(|answer| answer.write(&mut body))?;
    }
    let mut lines = BufWriter::new(zstd::Encoder::new(&mut body, 1)?);
    serde_json::to_writer(&mut lines, &dataset.report)?;
    for example in &dataset.examples {
        let Example { id, prompt, answers, labels, scores, safe, tags, source } = example.clone();
        let answers = answers.iter().map(|answer| answer.len()).collect();
        let (labels, tags) = (Arc::unwrap_or_clone(labels), Arc::unwrap_or_clone(tags));
        lines.write_all(b"\n")?;
        let line = Line { id, prompt: prompt.len(), answers, labels, scores, safe, tags, source };
        serde_json::to_writer(&mut lines, &line)?;
    }
    lines.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()?;
    body.writer.flush()?;
    Ok(body.hasher.finalize())
}

struct Hashed<W> {
    writer: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let written = self.writer.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.writer.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// An entry with a right checksum and these ids and lines.
    fn entry(ids: &[u32], lines: &str) -> Vec<u8> {
        let count = (ids.len() as u64).to_le_bytes();
        let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let lines = zstd::encode_all(lines.as_bytes(), 1).unwrap();
        let body = [&count[..], &ids, &lines].concat();
        [blake3::hash(&body).as_bytes(), &body[..]].concat()
    }

    #[test]
    fn lengths_beyond_the_ids_are_refused_and_ids_are_little_endian() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read_entry = |prompt: usize, answer: usize| {
            let line = format!("{{\"id\":\"a\",\"prompt\":{prompt},\"answers\":[{answer}]}}");
            let report = "{\"files\":[],\"left_out\":[],\"incidents\":[]}";
            std::fs::write(file.path(), entry(&[1, 2, 0x0102_0304], &format!("{report}\n{line}"))).unwrap();
            read(file.path())
        };
        let data = read_entry(1, 2).unwrap();
        assert_eq!(data.examples[0].answers[0], [2, 0x0102_0304]);
        for (prompt, answer) in [(1, 3), (1, usize::MAX), (2, usize::MAX - 1), (usize::MAX, 2), (1, usize::MAX / 4)] {
            assert!(read_entry(prompt, answer).is_none(), "{prompt} {answer}");
        }
    }

    #[test]
    fn an_entry_is_used_until_anything_changes() {
        let directory = tempfile::tempdir().unwrap();
        let (cache, data) = (directory.path().join("cache"), directory.path().join("a.jsonl"));
        let rows = b"{\"prompt_ids\":[1],\"chosen_ids\":[2],\"rejected_ids\":[3]}\n";
        std::fs::write(&data, rows).unwrap();
        let specs = [DataSpec::new(data.to_string_lossy())];
        let tokenizer = Tokenizer::ids_only(vec![]);
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
