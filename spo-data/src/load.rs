//! Files to a dataset: open, recognise, map columns, read, merge, tokenise in parallel.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Map, Value};

use crate::dataset::Dataset;
use crate::encode::encode_record;
use crate::expand::{copies, expand};
use crate::format::{self, Input, RawRow, Rows, open};
use crate::record::Record;
use crate::report::{FileReport, Incident};
use crate::schema::{self, Dimensions, Row, Schema};
use crate::tokens::TokenFile;
use crate::{DataError, DataSpec, Example, Preference, TextSpec, Tokenizer};

/// Rows that are tokenised at a time: bounds memory, feeds all cores.
const CHUNK: usize = 1024;
/// Ids that stay in memory (256 MiB); more go to a file.
const MOST_IN_MEMORY: usize = 64 << 20;
/// Different sets of labels or tags that are remembered to be shared.
const MOST_SHARED: usize = 4096;
/// Name of a preference that nobody named.
const UNNAMED: &str = "preference";

/// Loads files; `progress` is told the number of rows read so far.
///
/// # Errors
/// When a file is missing or unreadable, a layout is not recognised, a row is malformed or lacks a key, or
/// the text settings do not fit the tokenizer. Empty and over-long rows are no errors but entries of
/// [`Dataset::report`].
///
/// # Memory
/// Files are read row by row and only token ids, labels, scores, tags and ids of rows are kept. Each time that 256 MiB
/// of token ids have come together they go to a file without a name in the system's directory of temporary files
/// (`TMPDIR`), which is mapped.
pub fn load(
    specs: &[DataSpec],
    text: &TextSpec,
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(usize),
) -> Result<Dataset, DataError> {
    let mut loader = Loader::new(text, tokenizer, progress)?;
    for spec in specs {
        let mut left = spec.limit.unwrap_or(usize::MAX);
        for pattern in spec.path.as_slice() {
            let found = open::expand(pattern, spec.part)?;
            loader.dataset.report.left_out.extend(found.left_out);
            for path in found.files {
                if left == 0 {
                    break;
                }
                let name = path.to_string_lossy().into_owned();
                let format = format::find(&name, spec.format.as_deref())?;
                let rows = (format.open)(Input::open(&path)?, &name)?;
                // Ids stay the same wherever the data lie.
                let short = path.file_name().map_or_else(|| name.clone(), |name| name.to_string_lossy().into());
                left -= loader.file(spec, &name, &short, format.name, rows, left)?;
            }
        }
    }
    Ok(loader.dataset)
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
    let format = format::find(name, spec.format.as_deref())?;
    let rows = (format.open)(Input::Memory(bytes.to_vec()), name)?;
    load_named(name, format.name, rows, spec, text, tokenizer)
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
    let rows = rows.into_iter().enumerate().map(|(index, fields)| Ok(RawRow { line: index + 1, fields }));
    load_named(name, "rows", Box::new(rows), spec, text, tokenizer)
}

fn load_named(
    name: &str,
    format: &'static str,
    rows: Rows,
    spec: &DataSpec,
    text: &TextSpec,
    tokenizer: &Tokenizer,
) -> Result<Dataset, DataError> {
    let mut silent = |_| {};
    let mut loader = Loader::new(text, tokenizer, &mut silent)?;
    loader.file(spec, name, name, format, rows, spec.limit.unwrap_or(usize::MAX))?;
    Ok(loader.dataset)
}

struct Loader<'a> {
    text: &'a TextSpec,
    tokenizer: &'a Tokenizer,
    progress: &'a mut dyn FnMut(usize),
    rows: usize,
    dataset: Dataset,
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

/// The schema of a file and what its rows need.
struct Reading<'a> {
    schema: &'static Schema,
    why: String,
    file: &'a str,
    short: &'a str,
    dimension: &'a str,
}

impl<'a> Loader<'a> {
    fn new(
        text: &'a TextSpec,
        tokenizer: &'a Tokenizer,
        progress: &'a mut dyn FnMut(usize),
    ) -> Result<Self, DataError> {
        text.check()?;
        Ok(Self {
            text,
            tokenizer,
            progress,
            rows: 0,
            dataset: Dataset::default(),
            shared: Shared::default(),
            most_in_memory: MOST_IN_MEMORY,
            in_memory: 0,
            in_memory_from: 0,
            token_file: None,
        })
    }

    /// Reads at most `limit` rows of one file and returns how many there were.
    fn file(
        &mut self,
        spec: &DataSpec,
        file: &str,
        short: &str,
        format: &'static str,
        rows: Rows,
        limit: usize,
    ) -> Result<usize, DataError> {
        let weight = spec.weight.unwrap_or(1.0);
        if !(0.0..=1e6).contains(&weight) {
            let expected = "a number from 0 to 1000000";
            return Err(DataError::BadSetting { key: "weight", value: weight.to_string(), expected });
        }
        let mut reading: Option<Reading> = None;
        let mut chunk: Vec<(Record, usize)> = Vec::with_capacity(CHUNK);
        let (mut count, mut records) = (0, 0);
        for raw in rows.take(limit) {
            let raw = rename_columns(raw?, spec, file)?;
            let reading = match &mut reading {
                Some(reading) => reading,
                none => none.insert(Reading::start(spec, file, short, &raw)?),
            };
            let record = reading.record(&raw)?;
            match chunk.last_mut() {
                Some((last, _)) if reading.schema.merge && last.prompt == record.prompt => merge(last, record),
                _ => {
                    if chunk.len() >= CHUNK {
                        self.encode(&mut chunk, count)?;
                    }
                    chunk.push((record, copies(weight, records)));
                    records += 1;
                }
            }
            count += 1;
        }
        self.encode(&mut chunk, count)?;
        self.rows += count;
        let Some(Reading { schema, why, .. }) = reading else {
            return Err(DataError::Empty { file: file.to_string() });
        };
        let file = file.to_string();
        self.dataset.report.files.push(FileReport {
            file,
            format: format.to_string(),
            schema: schema.name.to_string(),
            why,
            rows: count,
        });
        Ok(count)
    }

    /// Tokenises a chunk of records, each with its number of copies; `read` rows of the file are behind.
    fn encode(&mut self, chunk: &mut Vec<(Record, usize)>, read: usize) -> Result<(), DataError> {
        let encoded: Vec<_> = chunk
            .par_drain(..)
            .flat_map_iter(|(record, copies)| expand(record, copies, self.text.supervise))
            .map(|record| {
                let id = record.id.clone();
                match encode_record(self.tokenizer, self.text, record) {
                    Ok(outcome) => Ok((id, outcome)),
                    Err(error @ (DataError::Template { .. } | DataError::Encode { .. })) => {
                        Err(DataError::Row { id, source: Box::new(error) })
                    }
                    Err(error) => Err(error),
                }
            })
            .collect();
        for outcome in encoded {
            let (id, (example, reasons)) = outcome?;
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

impl Loader<'_> {
    /// Moves the ids in memory to the file.
    fn spill(&mut self) -> std::io::Result<()> {
        let file = match &mut self.token_file {
            Some(file) => file,
            none => none.insert(TokenFile::create()?),
        };
        file.take(&mut self.dataset.examples[self.in_memory_from..])?;
        self.in_memory_from = self.dataset.examples.len();
        self.in_memory = 0;
        Ok(())
    }
}

impl<'a> Reading<'a> {
    fn start(spec: &'a DataSpec, file: &'a str, short: &'a str, first: &RawRow) -> Result<Self, DataError> {
        let (schema, why) = match &spec.schema {
            Some(name) => (schema::find(name)?, "named by schema".to_string()),
            None => schema::detect(file, first)?,
        };
        if let (Some(dimension), true) = (&spec.dimension, schema.dimensions != Dimensions::Unnamed) {
            let expected = match schema.dimensions {
                Dimensions::None => "no dimension: rows of this layout have no preference",
                _ => "no dimension: rows of this layout name their own",
            };
            let value = dimension.clone();
            return Err(DataError::BadSetting { key: "dimension", value, expected });
        }
        let dimension = spec.dimension.as_deref().unwrap_or(UNNAMED);
        Ok(Self { schema, why, file, short, dimension })
    }

    fn record(&self, raw: &RawRow) -> Result<Record, DataError> {
        let row = Row {
            file: self.file,
            line: raw.line,
            fields: &raw.fields,
            schema: self.schema.name,
            dimension: self.dimension,
        };
        let mut record = (self.schema.read)(&row)?;
        record.safe = schema::safety(&row, record.answers.len())?;
        if record.id == format!("{}:{}", self.file, raw.line) {
            record.id = format!("{}:{}", self.short, raw.line);
        }
        Ok(record)
    }
}

/// Gives columns the names that schemas know.
fn rename_columns(mut raw: RawRow, spec: &DataSpec, file: &str) -> Result<RawRow, DataError> {
    for (wanted, found) in &spec.columns {
        match raw.fields.shift_remove(found) {
            Some(value) => raw.fields.insert(wanted.clone(), value),
            None => {
                let keys: Vec<String> = raw.fields.keys().cloned().collect();
                return Err(DataError::MissingKey {
                    file: file.to_string(),
                    line: raw.line,
                    schema: "columns",
                    key: found.clone(),
                    found: keys,
                });
            }
        };
    }
    Ok(raw)
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
            let mut loader = Loader::new(&text, &tokenizer, &mut silent).unwrap();
            loader.most_in_memory = most_in_memory;
            loader.file(&DataSpec::default(), "rows", "rows", "rows", rows(5000), usize::MAX).unwrap();
            (loader.dataset, loader.token_file.is_some())
        };
        let ((kept, no), (spilled, yes)) = (read(usize::MAX), read(3000));
        assert!(!no && yes);
        assert_eq!(kept, spilled);
        assert!(Arc::ptr_eq(&spilled.examples[0].labels, &spilled.examples[4999].labels));
    }
}
