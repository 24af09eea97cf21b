//! Files to a dataset: open, recognise, map columns, read, merge, tokenise in parallel.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Map, Value};

use crate::dataset::Dataset;
use crate::encode::encode;
use crate::expand::{copies, expand};
use crate::files::expand as expand_paths;
use crate::format::{Input, RawRow, Rows};
use crate::meta::{MetaPrompts, MetaRows, judges};
use crate::reading::{Reading, rename_columns, sample};
use crate::record::{PromptText, Record};
use crate::report::{FileReport, Incident, LoadReport, Reason};
use crate::shares;
use crate::tokens::TokenFile;
use crate::{DataError, DataSpec, Example, Preference, Registry, TextSpec, Tokenizer};

/// Rows that are tokenised at a time: bounds memory, feeds all cores.
const CHUNK: usize = 1024;
/// Ids that stay in memory (32 MiB); more go to a file.
const MOST_IN_MEMORY: usize = 8 << 20;
/// Different sets of labels or tags that are remembered to be shared.
const MOST_SHARED: usize = 4096;

/// Loads files; `progress` is told the number of rows read so far.
///
/// # Errors
/// When a file is missing or unreadable, a layout is not recognised or would leave out what looks like text of the row, a
/// row is malformed or lacks a key, or the text settings do not fit the tokenizer. Empty and over-long rows are no errors
/// but entries of [`Dataset::report`], as are columns that nobody read.
///
/// # Memory
/// Files are read row by row and only token ids, labels, scores, tags and ids of rows are kept. Each time that 32 MiB
/// of token ids have come together they go to a file without a name in the system's directory of temporary files
/// (`TMPDIR`), which is mapped.
pub fn load(
    specs: &[DataSpec],
    text: &TextSpec,
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(usize),
) -> Result<Dataset, DataError> {
    Registry::builtin().load(specs, text, tokenizer, progress)
}

/// Loads a file from memory; its name decides the format and appears in ids and errors.
///
/// # Errors
/// As [`load`].
pub fn load_bytes(
    name: &str,
    bytes: &[u8],
    spec: &DataSpec,
    text: &TextSpec,
    tokenizer: &Tokenizer,
) -> Result<Dataset, DataError> {
    Registry::builtin().load_bytes(name, bytes, spec, text, tokenizer)
}

/// Loads rows that a program made; line `k` of errors and ids is the `k`-th row.
///
/// # Errors
/// As [`load`].
pub fn load_rows(
    name: &str,
    rows: Vec<Map<String, Value>>,
    spec: &DataSpec,
    text: &TextSpec,
    tokenizer: &Tokenizer,
) -> Result<Dataset, DataError> {
    Registry::builtin().load_rows(name, rows, spec, text, tokenizer)
}

impl Registry {
    /// As [`crate::load`].
    ///
    /// # Errors
    /// As [`crate::load`].
    pub fn load(
        &self,
        specs: &[DataSpec],
        text: &TextSpec,
        tokenizer: &Tokenizer,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Dataset, DataError> {
        shares::check(specs)?;
        let mut loader = Loader::new(self, text, tokenizer, progress)?;
        let (mut report, mut ends) = (LoadReport::default(), vec![]);
        for spec in specs {
            let own = std::slice::from_ref(spec);
            each_file(self, own, &mut report, |spec, source, left| loader.file(spec, source, left))?;
            ends.push(loader.dataset.examples.len());
        }
        specs.iter().try_for_each(|spec| loader.check_asked(spec))?;
        let LoadReport { left_out, cached, .. } = report;
        let mut dataset =
            Dataset { report: LoadReport { left_out, cached, ..loader.dataset.report }, ..loader.dataset };
        shares::mix(specs, &ends, &mut dataset);
        Ok(dataset)
    }

    /// The records of files: rows with their fields understood, as text. For what is done with rows before any tokenizer.
    ///
    /// # Errors
    /// As [`crate::load`], but for what is wrong with the text settings.
    pub fn records(&self, specs: &[DataSpec]) -> Result<(Vec<Record>, LoadReport), DataError> {
        let (mut records, mut report, mut files) = (vec![], LoadReport::default(), vec![]);
        each_file(self, specs, &mut report, |spec, source, left| {
            let meta = spec.meta_prompts.as_ref();
            let (count, file) = read(self, spec, source, left, &mut |record, _| {
                records.extend(asked(meta, record).into_iter().filter_map(Result::ok));
                Ok(())
            })?;
            files.push(file);
            Ok(count)
        })?;
        Ok((records, LoadReport { files, ..report }))
    }

    /// As [`crate::load_bytes`].
    ///
    /// # Errors
    /// As [`crate::load_bytes`].
    pub fn load_bytes(
        &self,
        name: &str,
        bytes: &[u8],
        spec: &DataSpec,
        text: &TextSpec,
        tokenizer: &Tokenizer,
    ) -> Result<Dataset, DataError> {
        let format = self.format(name, spec.format.as_deref())?;
        let rows = (format.open)(Input::Memory(bytes.to_vec()), name)?;
        load_one(self, Source { file: name, short: name, format: format.name, rows }, spec, text, tokenizer)
    }

    /// As [`crate::load_rows`].
    ///
    /// # Errors
    /// As [`crate::load_rows`].
    pub fn load_rows(
        &self,
        name: &str,
        rows: Vec<Map<String, Value>>,
        spec: &DataSpec,
        text: &TextSpec,
        tokenizer: &Tokenizer,
    ) -> Result<Dataset, DataError> {
        let rows = rows.into_iter().enumerate().map(|(index, fields)| Ok(RawRow { line: index + 1, fields }));
        load_one(self, Source { file: name, short: name, format: "rows", rows: Box::new(rows) }, spec, text, tokenizer)
    }
}

/// Opens the files that the specs name, one after the other; `take` reads at most as many rows of one as it is told and
/// returns how many there were.
fn each_file(
    registry: &Registry,
    specs: &[DataSpec],
    report: &mut LoadReport,
    mut take: impl FnMut(&DataSpec, Source, usize) -> Result<usize, DataError>,
) -> Result<(), DataError> {
    for spec in specs {
        check_meta(spec)?;
        let mut left = spec.limit.unwrap_or(usize::MAX);
        for pattern in spec.path.as_slice() {
            let found = expand_paths(registry, pattern, spec.part)?;
            report.left_out.extend(found.left_out);
            report.cached.extend(found.cached);
            for path in found.files {
                if left == 0 {
                    break;
                }
                let name = path.to_string_lossy().into_owned();
                let format = registry.format(&name, spec.format.as_deref())?;
                let rows = (format.open)(Input::open(&path)?, &name)?;
                // Ids stay the same wherever the data lie.
                let short = path.file_name().map_or_else(|| name.clone(), |name| name.to_string_lossy().into());
                left -= take(spec, Source { file: &name, short: &short, format: format.name, rows }, left)?;
            }
        }
    }
    Ok(())
}

/// Reads at most `limit` rows of one file and hands out its records, each with the number of rows read so far.
fn read(
    registry: &Registry,
    spec: &DataSpec,
    source: Source,
    limit: usize,
    take: &mut dyn FnMut(Record, usize) -> Result<(), DataError>,
) -> Result<(usize, FileReport), DataError> {
    let Source { file, short, format, rows } = source;
    let mut rows = rows.take(limit).map(|raw| rename_columns(raw?, spec, file));
    let (sample, failed) = sample(&mut rows);
    if sample.is_empty() {
        return Err(failed.unwrap_or_else(|| DataError::Empty { file: file.to_string() }));
    }
    // What is wrong with the layout of the rows before matters more than the row that cannot be read.
    let mut reading = Reading::start(registry, spec, file, short, &sample)?;
    let (mut count, mut last): (usize, Option<Record>) = (0, None);
    for raw in sample.into_iter().map(Ok).chain(failed.map(Err)).chain(rows) {
        let mut record = reading.record(&raw?)?;
        for (name, value) in &spec.template_kwargs {
            record.variables.entry(name).or_insert_with(|| value.clone());
        }
        match &mut last {
            Some(last) if reading.schema.merge && same_prompt(last, &record) => merge(last, record),
            _ => {
                if let Some(whole) = last.replace(record) {
                    take(whole, count)?;
                }
            }
        }
        count += 1;
    }
    if let Some(whole) = last {
        take(whole, count)?;
    }
    Ok((count, reading.report(format, count)))
}

fn check_meta(spec: &DataSpec) -> Result<(), DataError> {
    spec.meta_prompts.as_ref().map_or(Ok(()), |meta| meta.check().map_err(DataError::MetaPrompts))
}

fn load_one(
    registry: &Registry,
    source: Source,
    spec: &DataSpec,
    text: &TextSpec,
    tokenizer: &Tokenizer,
) -> Result<Dataset, DataError> {
    let mut silent = |_| {};
    check_meta(spec)?;
    let mut loader = Loader::new(registry, text, tokenizer, &mut silent)?;
    loader.file(spec, source, spec.limit.unwrap_or(usize::MAX))?;
    loader.check_asked(spec)?;
    Ok(loader.dataset)
}

/// An open file.
struct Source<'a> {
    file: &'a str,
    /// Its name without directories.
    short: &'a str,
    format: &'static str,
    rows: Rows,
}

struct Loader<'a> {
    registry: &'a Registry,
    text: &'a TextSpec,
    tokenizer: &'a Tokenizer,
    progress: &'a mut dyn FnMut(usize),
    rows: usize,
    dataset: Dataset,
    /// Dimensions along which rows that meta-prompts stand before prefer an answer.
    judged: BTreeSet<String>,
    shared: Shared,
    most_in_memory: usize,
    /// Ids in memory, all in the examples from `in_memory_from` on.
    in_memory: usize,
    in_memory_from: usize,
    token_file: Option<TokenFile>,
}

/// Labels and tags that rows have in common, kept once.
#[derive(Default)]
pub(crate) struct Shared {
    labels: HashSet<Arc<BTreeMap<String, Preference>>>,
    tags: HashSet<Arc<BTreeMap<String, String>>>,
}

impl Shared {
    pub(crate) fn share(&mut self, example: &mut Example) {
        share(&mut self.labels, &mut example.labels);
        share(&mut self.tags, &mut example.tags);
    }
}

fn share<T: Hash + Eq>(known: &mut HashSet<Arc<T>>, value: &mut Arc<T>) {
    if let Some(earlier) = known.get(value) {
        *value = earlier.clone();
    } else if known.len() < MOST_SHARED {
        known.insert(value.clone());
    }
}

impl<'a> Loader<'a> {
    fn new(
        registry: &'a Registry,
        text: &'a TextSpec,
        tokenizer: &'a Tokenizer,
        progress: &'a mut dyn FnMut(usize),
    ) -> Result<Self, DataError> {
        text.check()?;
        Ok(Self {
            registry,
            text,
            tokenizer,
            progress,
            rows: 0,
            dataset: Dataset::default(),
            judged: BTreeSet::new(),
            shared: Shared::default(),
            most_in_memory: MOST_IN_MEMORY,
            in_memory: 0,
            in_memory_from: 0,
            token_file: None,
        })
    }

    /// Reads at most `limit` rows of one file and returns how many there were.
    fn file(&mut self, spec: &DataSpec, source: Source, limit: usize) -> Result<usize, DataError> {
        let weight = spec.weight.unwrap_or(1.0);
        if !(0.0..=1e6).contains(&weight) {
            let expected = "a number from 0 to 1000000";
            return Err(DataError::BadSetting { key: "weight", value: weight.to_string(), expected });
        }
        let mut chunk: Vec<(Record, usize)> = Vec::with_capacity(CHUNK);
        let (registry, mut records, meta) = (self.registry, 0, spec.meta_prompts.as_ref());
        let (count, report) = read(registry, spec, source, limit, &mut |record, count| {
            if chunk.len() >= CHUNK {
                self.encode(&mut chunk, meta, count)?;
            }
            self.note_judged(meta, &record)?;
            chunk.push((record, copies(weight, records)));
            records += 1;
            Ok(())
        })?;
        self.encode(&mut chunk, meta, count)?;
        self.rows += count;
        self.dataset.report.files.push(report);
        Ok(count)
    }

    /// Tokenises a chunk of records, each with its number of copies; `read` rows of the file are behind.
    fn encode(
        &mut self,
        chunk: &mut Vec<(Record, usize)>,
        meta: Option<&MetaPrompts>,
        read: usize,
    ) -> Result<(), DataError> {
        let encoded: Vec<_> = chunk
            .par_drain(..)
            .flat_map_iter(|(record, copies)| expand(record, copies, self.text.supervise))
            .flat_map_iter(|record| asked(meta, record))
            .map(|record| {
                let record = match record {
                    Ok(record) => record,
                    Err(id) => return Ok((id, (None, vec![Reason::NotAsked]), BTreeSet::new())),
                };
                let (id, mut left_out) = (record.id.clone(), BTreeSet::new());
                match encode(self.tokenizer, self.text, record, &mut left_out) {
                    Ok(outcome) => Ok((id, outcome, left_out)),
                    Err(error @ (DataError::Template { .. } | DataError::Encode { .. })) => {
                        Err(DataError::Row { id, source: Box::new(error) })
                    }
                    Err(error) => Err(error),
                }
            })
            .collect();
        for outcome in encoded {
            let (id, (example, reasons), left_out) = outcome?;
            for name in left_out {
                *self.dataset.report.unrendered.entry(name).or_default() += 1;
            }
            let incidents = reasons.into_iter().map(|reason| Incident { id: id.clone(), reason });
            self.dataset.report.incidents.extend(incidents);
            if let Some(mut example) = example {
                self.shared.share(&mut example);
                self.in_memory += example.tokens();
                self.dataset.examples.push(example);
            }
        }
        if self.in_memory > self.most_in_memory {
            self.spill().map_err(|source| DataError::Write { path: std::env::temp_dir(), source })?;
        }
        (self.progress)(self.rows + read);
        Ok(())
    }
}

/// The rows that meta-prompts make of a row, which is itself without any; the row's id where they make none.
fn asked(meta: Option<&MetaPrompts>, record: Record) -> Vec<Result<Record, String>> {
    let Some(meta) = meta else { return vec![Ok(record)] };
    let rows = meta.rows(&record);
    if rows.is_empty() { vec![Err(record.id)] } else { rows.into_iter().map(Ok).collect() }
}

impl Loader<'_> {
    /// Keeps along which dimensions a row prefers an answer.
    fn note_judged(&mut self, meta: Option<&MetaPrompts>, record: &Record) -> Result<(), DataError> {
        if meta.is_none() {
            return Ok(());
        }
        if matches!(record.prompt, PromptText::Ids(_)) {
            return Err(DataError::MetaIds { id: record.id.clone() });
        }
        for name in record.labels.keys().chain(record.scores.keys()) {
            if !self.judged.contains(name) && judges(record, name) {
                self.judged.insert(name.clone());
            }
        }
        Ok(())
    }

    /// Refuses meta-prompts that ask for what no row is about.
    fn check_asked(&self, spec: &DataSpec) -> Result<(), DataError> {
        let Some(meta) = &spec.meta_prompts else { return Ok(()) };
        let (rows, tables) = match &meta.layout.rows {
            MetaRows::Trained { .. } => ("training", vec![("texts", &meta.texts)]),
            MetaRows::HeldOut => ("held-out", vec![("texts", &meta.texts), ("held-out", &meta.held_out)]),
            MetaRows::Behind(_) => return Ok(()),
        };
        let mut asked = tables.iter().flat_map(|(key, texts)| texts.keys().map(move |name| (*key, name)));
        asked.find(|(_, name)| !self.judged.contains(*name)).map_or(Ok(()), |(key, name)| {
            let known = self.judged.iter().cloned().collect();
            Err(DataError::MetaDimension { key, dimension: name.clone(), rows, known })
        })
    }

    /// Moves the ids in memory to the file.
    fn spill(&mut self) -> std::io::Result<()> {
        let file = match &mut self.token_file {
            Some(file) => file,
            none => none.insert(TokenFile::create()?),
        };
        let examples = self.dataset.examples[self.in_memory_from..].iter_mut();
        file.take(
            examples.flat_map(|example| std::iter::once(&mut example.prompt).chain(&mut example.answers)).collect(),
        )?;
        self.in_memory_from = self.dataset.examples.len();
        self.in_memory = 0;
        Ok(())
    }
}

/// Whether two rows are about the same prompt.
fn same_prompt(one: &Record, other: &Record) -> bool {
    (&one.prompt, &one.system, &one.tools) == (&other.prompt, &other.system, &other.tools)
}

/// Appends the answers of a further row about the same prompt.
fn merge(into: &mut Record, record: Record) {
    into.answers.extend(record.answers);
    into.safe.extend(record.safe);
    for (dimension, scores) in record.scores {
        into.scores.entry(dimension).or_default().extend(scores);
    }
    into.tags.retain(|name, value| record.tags.get(name) == Some(value));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_beyond_the_limit_go_to_a_file_and_labels_are_shared() {
        let rows = |count: u32| -> Rows {
            Box::new((0..count).map(|row| {
                let fields = serde_json::json!({"prompt_ids": [row], "chosen_ids": [1, row], "rejected_ids": [2]});
                let Value::Object(fields) = fields else { unreachable!() };
                Ok(RawRow { line: row as usize + 1, fields })
            }))
        };
        let read = |most_in_memory: usize| {
            let (text, tokenizer, mut silent) = (TextSpec::default(), Tokenizer::ids_only(vec![]), |_| {});
            let registry = Registry::builtin();
            let mut loader = Loader::new(&registry, &text, &tokenizer, &mut silent).unwrap();
            loader.most_in_memory = most_in_memory;
            let source = Source { file: "rows", short: "rows", format: "rows", rows: rows(5000) };
            loader.file(&DataSpec::default(), source, usize::MAX).unwrap();
            (loader.dataset, loader.token_file.is_some())
        };
        let ((kept, no), (spilled, yes)) = (read(usize::MAX), read(3000));
        assert!(!no && yes);
        assert_eq!(kept, spilled);
        assert!(Arc::ptr_eq(&spilled.examples[0].labels, &spilled.examples[4999].labels));
    }
}
