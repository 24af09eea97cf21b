//! What can go wrong between a file and a batch.

mod gguf;

pub use gguf::GgufError;

use std::path::PathBuf;

/// An error of this crate; [`DataError::hint`] suggests what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A path or pattern names no file.
    #[error("no file matches {pattern:?}")]
    NoFile {
        /// The path or pattern.
        pattern: String,
    },
    /// A file holds no row.
    #[error("{file}: the file has no rows")]
    Empty {
        /// The file.
        file: String,
    },
    /// The file's extension belongs to no known format.
    #[error("{file}: unknown file format; known are {}", known.join(", "))]
    UnknownFormat {
        /// The file.
        file: String,
        /// Registered format names.
        known: Vec<&'static str>,
    },
    /// A row is not what its format promises.
    #[error("{file}:{line}: {message}")]
    MalformedRow {
        /// The file.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A name in the run file belongs to no schema.
    #[error("unknown schema {name:?}; known are {}", known.join(", "))]
    UnknownSchema {
        /// The name given.
        name: String,
        /// Registered schema names.
        known: Vec<&'static str>,
    },
    /// No schema fits the first rows of a file.
    #[error(transparent)]
    NoSchema(Box<NoSchema>),
    /// A recognised layout would leave out a column that looks like text or a judgement of the row.
    #[error("{file}:{line}: layout {schema} would leave out the column {column:?}")]
    LeftOut {
        /// The file.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// The schema.
        schema: &'static str,
        /// The column that it does not read.
        column: String,
        /// The key that the column is probably meant for, if the row has no other column for it.
        key: Option<&'static str>,
    },
    /// A file as a whole is not what its format promises.
    #[error("{file}: {message}")]
    BadFile {
        /// The file.
        file: String,
        /// What it is or why it cannot be read.
        message: String,
        /// What to do.
        hint: &'static str,
    },
    /// A row lacks a key of its schema.
    #[error(
        "{file}:{line}: schema {schema} needs the key {key:?}{}; the row has {}",
        if *null { ", which is null here" } else { "" }, found.join(", ")
    )]
    MissingKey {
        /// The file.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// The schema.
        schema: &'static str,
        /// The missing key.
        key: String,
        /// Whether it is there, but null.
        null: bool,
        /// Keys of the row.
        found: Vec<String>,
    },
    /// A value has the wrong type or content.
    #[error("{file}:{line}: key {key:?} of schema {schema}: expected {expected}, found {found}")]
    WrongValue {
        /// The file.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// The schema.
        schema: &'static str,
        /// The key.
        key: String,
        /// What was expected.
        expected: &'static str,
        /// What is there, shortened.
        found: String,
    },
    /// A directory has no tokenizer that can be read.
    #[error("{}: {message}", path.display())]
    NoTokenizer {
        /// The directory.
        path: PathBuf,
        /// What is there instead.
        message: String,
    },
    /// A GGUF file is damaged, or its tokenizer is of no kind that is known here.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A tokenizer file is broken.
    #[error("{file}: {message}")]
    BadTokenizer {
        /// The file.
        file: String,
        /// What is wrong.
        message: String,
    },
    /// There is no tokenizer, and the data are text.
    #[error("the model has no tokenizer, so the data must be token ids (prompt_ids, chosen_ids, rejected_ids)")]
    IdsOnly,
    /// Text could not be turned into token ids, or back.
    #[error("tokenizer failed: {message}")]
    Encode {
        /// What the tokenizer said.
        message: String,
    },
    /// The text of a row cannot be laid out or tokenised.
    #[error("row {id}: {source}")]
    Row {
        /// [`crate::Example::id`].
        id: String,
        /// What went wrong.
        source: Box<DataError>,
    },
    /// A chat template does not parse or raised an error.
    #[error("chat template: {message}")]
    Template {
        /// What the template engine or the template said.
        message: String,
    },
    /// The chat layout was asked for, but the tokenizer has no template.
    #[error("the tokenizer has no chat template, and template = \"chat\" needs one")]
    NoTemplate,
    /// A tokenizer has templates, but none that counts unasked.
    #[error("the tokenizer has chat templates called {}, and none is called default", names.join(", "))]
    NoDefaultTemplate {
        /// Their names.
        names: Vec<String>,
    },
    /// A special token is not in the vocabulary.
    #[error("the tokenizer's {role} is {token}, which is no token of its vocabulary")]
    NoSuchToken {
        /// `eos_token`, `bos_token`, or `eos_token_id`.
        role: String,
        /// How it is spelled, or its id.
        token: String,
    },
    /// A file is not there, only the text that stands for it in a Git repository.
    #[error("{} is a Git LFS pointer, not the file itself", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// Meta-prompts make no sense.
    #[error("meta-prompts.{}: {}", .0.key, .0.message)]
    MetaPrompts(MetaFault),
    /// A prompt that a meta-prompt cannot stand before.
    #[error("row {id}: meta-prompts are text, and the prompt is token ids")]
    MetaIds {
        /// [`crate::Example::id`].
        id: String,
    },
    /// Meta-prompts ask for a dimension that no row is labelled along.
    #[error(
        "meta-prompts.{key} asks for {dimension:?}, which no {rows} row prefers an answer along; they have {}",
        if known.is_empty() { "no labels".to_owned() } else { known.join(", ") }
    )]
    MetaDimension {
        /// `texts` or `held-out`.
        key: &'static str,
        /// The dimension.
        dimension: String,
        /// Training or held-out.
        rows: &'static str,
        /// The dimensions that rows are labelled along.
        known: Vec<String>,
    },
    /// A setting makes no sense.
    #[error("{key} = {value}: expected {expected}")]
    BadSetting {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

impl DataError {
    /// A suggestion for the user, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSchema(unknown) => Some(unknown.hint()),
            Self::NoFile { .. } => Some(
                "the `path` of a `[[data]]` is looked for from the run file's directory, one of a command line from here; `*` stands \
                 for any characters"
                    .into(),
            ),
            Self::LeftOut { column, key, schema, .. } => Some(match key {
                Some(key) => format!(
                    "say what it is with columns.{key} = \"{column}\" (--column {key}={column}), or leave it out with \
                     schema = \"{schema}\" (--schema {schema})"
                ),
                None => format!(
                    "take the column out, name another layout (`spo list schemas`), or leave it out with \
                     schema = \"{schema}\" (--schema {schema})"
                ),
            }),
            Self::BadFile { hint, .. } => Some((*hint).to_string()),
            Self::MissingKey { null: true, .. } => {
                Some("give it a value or take the row out; no row is left out silently".into())
            }
            Self::MissingKey { key, found, .. } => nearest(key, found.iter().map(String::as_str))
                .map(|found| format!("is {found:?} meant to be {key:?}? Map it with columns.{key} = \"{found}\"")),
            Self::UnknownSchema { name, known } => {
                nearest(name, known.iter().copied()).map(|name| format!("did you mean {name:?}?"))
            }
            Self::UnknownFormat { .. } => Some("set format = \"…\" for files with another extension".into()),
            Self::MalformedRow { .. } => Some("mend the row or take it out; no row is left out silently".into()),
            Self::NoTemplate => Some("use template = \"plain\", or add chat_template.jinja to the tokenizer".into()),
            Self::NoDefaultTemplate { .. } => Some(
                "give one of them the name default, or lay text out without a template: template = \"plain\"".into(),
            ),
            Self::NoSuchToken { role, .. } => Some(match role.as_str() {
                "eos_token_id" => "mend eos_token_id in generation_config.json or config.json".into(),
                _ => format!("mend {role} in tokenizer_config.json or special_tokens_map.json, or add the token"),
            }),
            Self::Gguf(error) => error.hint.map(str::to_owned),
            Self::LfsPointer { .. } => Some("`git lfs pull` in the repository's directory fetches it".into()),
            Self::MetaPrompts(fault) => Some(fault.hint.into()),
            Self::MetaIds { .. } => Some("give the rows as text, or leave meta-prompts out".into()),
            Self::MetaDimension { dimension, known, .. } => {
                let near = nearest(dimension, known.iter().map(String::as_str));
                Some(near.map_or_else(
                    || "take its texts out, or label rows along it".to_owned(),
                    |name| format!("did you mean {name:?}?"),
                ))
            }
            Self::Row { source, .. } => source.hint(),
            _ => None,
        }
    }
}

/// What is wrong with meta-prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaFault {
    /// The key, below `meta-prompts`.
    pub key: String,
    /// What was found and what was expected.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

/// Rows that no layout fits.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file}:{line}: no known layout has the keys {}; the nearest, {likely}, also needs {}",
    found.join(", "), missing.join(", ")
)]
pub struct NoSchema {
    /// The file.
    pub file: String,
    /// Line of the first row, counted from 1.
    pub line: usize,
    /// Keys of the row.
    pub found: Vec<String>,
    /// Name of the layout that misses the least.
    pub likely: &'static str,
    /// What it misses.
    pub missing: Vec<&'static str>,
    /// The likeliest spelling mistake, as (found, wanted).
    pub nearest: Option<(String, String)>,
    /// A key that holds a list of objects, which may be the rows.
    pub inside: Option<String>,
    /// The known layouts with their keys.
    pub layouts: Vec<(&'static str, &'static [&'static str])>,
}

impl NoSchema {
    fn hint(&self) -> String {
        let layout = |(name, keys): &(&str, &[&str])| format!("\n  {name}: {}", keys.join(", "));
        let layouts: String = self.layouts.iter().map(layout).collect();
        match (&self.nearest, &self.inside) {
            (Some((found, key)), _) => format!(
                "is {found:?} meant to be {key:?}? Map it with columns.{key} = \"{found}\". Known layouts:{layouts}"
            ),
            (None, Some(inside)) => format!(
                "are the rows in the list under {inside:?}? Write that list alone into the file. Known layouts:{layouts}"
            ),
            (None, None) => {
                format!("map keys with columns.prompt = \"…\", or --column prompt=…; known layouts:{layouts}")
            }
        }
    }
}

/// The candidate closest in spelling, if it is close enough to be a mistake: a few letters off, or the
/// same beginning.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, candidate)| {
            *similarity >= 0.85 || strsim::osa_distance(name, candidate) <= (name.len() / 3).max(1)
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
