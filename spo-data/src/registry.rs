//! The layouts and file formats that loading knows: a value, to which other crates add their own.

use crate::DataError;
use crate::format::{self, Format, data_extension};
use crate::schema::{self, Schema};

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
        let extension = data_extension(file);
        let wanted = |format: &&Format| match name {
            Some(name) => format.name == name,
            None => extension.as_deref().is_some_and(|ext| format.extensions.contains(&ext)),
        };
        self.formats.iter().find(wanted).copied().ok_or_else(|| DataError::UnknownFormat {
            file: file.to_string(),
            known: self.formats.iter().map(|format| format.name).collect(),
        })
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::builtin()
    }
}
