//! The layouts and file formats that loading knows: a value, to which other crates add their own.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::format::{self, Format, open};
use crate::schema::{self, Schema};
use crate::{DataError, DataSpec, Dataset, LoadReport, Part, Record, TextSpec, Tokenizer};

/// Layouts of rows and file formats by name.
///
/// [`crate::load`] and its like use [`Registry::builtin`]; the methods of the same names use this one.
///
/// ```
/// use spo_data::schema::{Dimensions, Schema};
/// use spo_data::{DataSpec, Registry, TextSpec, Tokenizer};
///
/// const DUEL: Schema = Schema {
///     name: "duel",
///     summary: "ask, won and lost",
///     keys: &["ask", "won", "lost"],
///     dimensions: Dimensions::Unnamed,
///     recognise: |_| true,
///     read: |row| row.chosen_first(row.prompt("ask")?, row.answer("won")?, row.answer("lost")?, &["ask", "won", "lost"]),
///     merge: false,
/// };
///
/// # let tokenizer = Tokenizer::from_bytes(br#"{"version": "1.0", "model": {"type": "WordLevel", "unk_token": "<unk>",
/// #     "vocab": {"<unk>": 0, "</s>": 1, "Why": 2}}, "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": []}"#,
/// #     br#"{"eos_token": "</s>"}"#, None)?;
/// let registry = Registry::builtin().add(DUEL);
/// let file = br#"{"ask": "Why", "won": " Because", "lost": " No"}"#;
/// let data = registry.load_bytes("a.jsonl", file, &DataSpec::default(), &TextSpec::default(), &tokenizer)?;
/// assert_eq!(data.report.files[0].schema, "duel");
/// # Ok::<(), spo_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Registry {
    schemas: Vec<Schema>,
    formats: Vec<Format>,
}

/// What a [`Registry`] holds.
#[derive(Debug, Clone, Copy)]
pub enum Entry {
    /// A layout of rows.
    Schema(Schema),
    /// A file format.
    Format(Format),
}

impl From<Schema> for Entry {
    fn from(schema: Schema) -> Self {
        Self::Schema(schema)
    }
}

impl From<Format> for Entry {
    fn from(format: Format) -> Self {
        Self::Format(format)
    }
}

impl Registry {
    /// The layouts and formats of this crate.
    pub fn builtin() -> Self {
        Self { schemas: schema::BUILTIN.to_vec(), formats: format::BUILTIN.to_vec() }
    }

    /// With one more entry, which is tried before all others and takes the place of one that has its name.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "entries are added, not numbers")]
    pub fn add(mut self, entry: impl Into<Entry>) -> Self {
        match entry.into() {
            Entry::Schema(schema) => {
                self.schemas.retain(|other| other.name != schema.name);
                self.schemas.insert(0, schema);
            }
            Entry::Format(format) => {
                self.formats.retain(|other| other.name != format.name);
                self.formats.insert(0, format);
            }
        }
        self
    }

    /// All layouts, in the order of detection.
    pub fn schemas(&self) -> &[Schema] {
        &self.schemas
    }

    /// All file formats.
    pub fn formats(&self) -> &[Format] {
        &self.formats
    }

    /// The layout of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn schema(&self, name: &str) -> Result<Schema, DataError> {
        self.schemas.iter().find(|schema| schema.name == name).copied().ok_or_else(|| DataError::UnknownSchema {
            name: name.to_string(),
            known: self.schemas.iter().map(|schema| schema.name).collect(),
        })
    }

    /// The format of a file: of this name, else by the file's extension.
    ///
    /// # Errors
    /// When neither is known.
    pub fn format(&self, file: &str, name: Option<&str>) -> Result<Format, DataError> {
        let extension = open::data_extension(file);
        let wanted = |format: &&Format| match name {
            Some(name) => format.name == name,
            None => extension.as_deref().is_some_and(|ext| format.extensions.contains(&ext)),
        };
        self.formats.iter().find(wanted).copied().ok_or_else(|| DataError::UnknownFormat {
            file: file.to_string(),
            known: self.formats.iter().map(|format| format.name).collect(),
        })
    }

    /// The files that a path, directory or pattern names, sorted.
    ///
    /// # Errors
    /// There are none, or a directory cannot be read.
    pub fn files(&self, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
        Ok(open::expand(self, pattern, Part::All)?.files)
    }

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
        crate::load::load(self, specs, text, tokenizer, progress)
    }

    /// The records of files: rows with their fields understood, as text. For what is done with rows before any tokenizer.
    ///
    /// # Errors
    /// As [`crate::load`], but for what is wrong with the text settings.
    pub fn records(&self, specs: &[DataSpec]) -> Result<(Vec<Record>, LoadReport), DataError> {
        crate::load::records(self, specs)
    }

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
        crate::cache::load_cached(self, specs, text, tokenizer, directory, progress)
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
        crate::load::load_bytes(self, name, bytes, spec, text, tokenizer)
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
        crate::load::load_rows(self, name, rows, spec, text, tokenizer)
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::builtin()
    }
}

/// Loads files; `progress` is told the number of rows read so far.
///
/// # Errors
/// When a file is missing or unreadable, a layout is not recognised or would leave out what looks like text of the row, a
/// row is malformed or lacks a key, or the text settings do not fit the tokenizer. Empty and over-long rows are no errors
/// but entries of [`Dataset::report`], as are columns that nobody read.
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
    Registry::builtin().load(specs, text, tokenizer, progress)
}

/// As [`load`], but takes the dataset from `directory` if these files were loaded with the same tokenizer
/// and settings before, and leaves it there otherwise; the flag says which.
///
/// An entry is keyed by the content of the files, the tokenizer's files, both specs and this format's
/// version. A damaged entry is loaded anew. The ids of an entry are mapped: do not cut its file short while in use.
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
    Registry::builtin().load_cached(specs, text, tokenizer, directory, progress)
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
