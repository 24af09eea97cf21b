//! What can be wrong with a run file.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Position in a run file, or a `--set` argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the file, or the whole argument.
    pub name: String,
    /// Line from 1; `None` on the command line.
    pub line: Option<usize>,
    /// Column from 1, in characters.
    pub column: Option<usize>,
    /// Byte range in `text`.
    pub span: Range<usize>,
    /// The whole file, or the argument.
    pub text: Arc<str>,
}

impl Place {
    pub(crate) fn in_text(name: &str, text: &Arc<str>, span: Range<usize>) -> Self {
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            name: name.to_owned(),
            line: Some(before.matches('\n').count() + 1),
            column: Some(before[line_start..].chars().count() + 1),
            span: start..span.end.clamp(start, text.len()),
            text: text.clone(),
        }
    }

    pub(crate) fn on_command_line(argument: &Arc<str>) -> Self {
        Self {
            name: format!("--set {argument}"),
            line: None,
            column: None,
            span: 0..argument.len(),
            text: argument.clone(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, "{}:{line}:{column}", self.name),
            _ => f.write_str(&self.name),
        }
    }
}

/// A run file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: cannot read the run file: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A study file could not be read.
    #[error("{}: cannot read the study file: {source}", path.display())]
    ReadStudy {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{at}: {message}")]
    Syntax {
        /// Where.
        at: Box<Place>,
        /// What the parser says.
        message: String,
    },
    /// A `--set` argument that cannot be applied.
    #[error("--set {argument}: {message}")]
    Set {
        /// The argument.
        argument: String,
        /// What is wrong with it.
        message: String,
    },
    /// The run file is of another layout version.
    #[error("{at}: `schema` is {found}, this version of spo reads schema {supported}")]
    UnsupportedSchema {
        /// Where.
        at: Box<Place>,
        /// Version in the file.
        found: i64,
        /// Version that is read.
        supported: u32,
    },
    /// A key that does not exist.
    #[error("{at}: unknown key `{key}` in {section}")]
    UnknownKey {
        /// Where.
        at: Box<Place>,
        /// The key.
        key: String,
        /// The table it stands in.
        section: String,
        /// Keys that exist there.
        known: Vec<String>,
        /// A section that has this key.
        elsewhere: Option<String>,
    },
    /// A required key is absent.
    #[error("{at}: `{key}` is missing in {section}")]
    MissingKey {
        /// Where its table begins.
        at: Box<Place>,
        /// The key.
        key: String,
        /// The table.
        section: String,
    },
    /// A value of the wrong type or outside its range.
    #[error("{at}: `{key}` is {found}, expected {expected}")]
    WrongValue {
        /// Where.
        at: Box<Place>,
        /// Dotted key.
        key: String,
        /// The value in words.
        found: String,
        /// What is accepted.
        expected: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A name that is not on the list of names.
    #[error("{at}: `{key}` is {found:?}, which is {}", listed(known))]
    UnknownName {
        /// Where.
        at: Box<Place>,
        /// Dotted key.
        key: String,
        /// The name.
        found: String,
        /// Names that exist.
        known: Vec<String>,
    },
    /// Two keys that exclude each other.
    #[error("{at}: `{key}` and `{other}` exclude each other")]
    Exclusive {
        /// Where the first stands.
        at: Box<Place>,
        /// Dotted key.
        key: String,
        /// The other key.
        other: String,
    },
    /// A round or the warm-up names a dimension the data does not have.
    #[error("{at}: `{key}` is {found:?}, but the training data has {}", counted(known))]
    UnknownDimension {
        /// Where.
        at: Box<Place>,
        /// Dotted key.
        key: String,
        /// The name.
        found: String,
        /// Dimensions of the data and their training pairs.
        known: Vec<(String, usize)>,
    },
    /// Two rounds or arms share a name.
    #[error("{at}: the name {name:?} is already used by {other}")]
    DuplicateName {
        /// Where.
        at: Box<Place>,
        /// The name.
        name: String,
        /// Dotted key of the first user.
        other: String,
    },
    /// `lambda` names a dimension that is not earlier, or leaves one out.
    #[error("{at}: `{key}` must have one value for each earlier dimension ({}), {problem}", quoted(earlier))]
    Lambda {
        /// Where.
        at: Box<Place>,
        /// Dotted key.
        key: String,
        /// Dimensions of the earlier rounds.
        earlier: Vec<String>,
        /// What is wrong.
        problem: String,
    },
    /// An option that the arm's objective does not have.
    #[error("{at}: `{key}` is no option of the objective `{objective}`")]
    ForeignOption {
        /// Where.
        at: Box<Place>,
        /// Dotted key.
        key: String,
        /// The arm's objective.
        objective: String,
        /// Options it has.
        known: Vec<String>,
    },
    /// The objective refuses its options, or a section's own reader its values.
    #[error("{at}: `{key}`: {message}")]
    Refused {
        /// Where.
        at: Box<Place>,
        /// Dotted key.
        key: String,
        /// The reader's words.
        message: String,
        /// The reader's advice.
        hint: Option<String>,
    },
}

impl ConfigError {
    /// Position of the fault; `None` for a file that could not be read or an argument that could not be applied.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Read { .. } | Self::ReadStudy { .. } | Self::Set { .. } => None,
            Self::Syntax { at, .. }
            | Self::UnsupportedSchema { at, .. }
            | Self::UnknownKey { at, .. }
            | Self::MissingKey { at, .. }
            | Self::WrongValue { at, .. }
            | Self::UnknownName { at, .. }
            | Self::Exclusive { at, .. }
            | Self::UnknownDimension { at, .. }
            | Self::DuplicateName { at, .. }
            | Self::Lambda { at, .. }
            | Self::ForeignOption { at, .. }
            | Self::Refused { at, .. } => Some(at),
        }
    }

    /// Byte range (start, end) of the fault in [`Place::text`].
    pub fn span(&self) -> Option<(usize, usize)> {
        self.place().map(|place| (place.span.start, place.span.end))
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("`spo init` writes a commented run file".to_owned()),
            Self::ReadStudy { .. } => Some(
                "a study file names a run file, seeds and arms, such as recipes/study/study.toml; `spo study --help` says more"
                    .to_owned(),
            ),
            Self::UnsupportedSchema { found, supported, .. } => Some(if *found > i64::from(*supported) {
                "the file was written for a newer spo: update spo".to_owned()
            } else {
                format!("set `schema = {supported}` and compare the keys with docs/run-file.md")
            }),
            Self::UnknownKey { key, known, elsewhere, .. } => Some(suggestion(key, known, elsewhere.as_deref())),
            Self::UnknownName { found, known, .. } => match nearest(found, known) {
                Some(name) => Some(format!("did you mean {name:?}?")),
                None => (known.len() > FEW).then(|| format!("known: {}", known.join(", "))),
            },
            Self::UnknownDimension { found, known, .. } => {
                let names: Vec<String> = known.iter().map(|(name, _)| name.clone()).collect();
                nearest(found, &names).map(|name| format!("did you mean {name:?}?"))
            }
            Self::MissingKey { key, .. } if key == "schema" => Some("add `schema = 1` as the first line".to_owned()),
            Self::MissingKey { key, .. } if key == "rounds" => {
                Some("add a table: [[rounds]] with `dimension = \"…\"`".to_owned())
            }
            Self::MissingKey { key, .. } if key == "data" => {
                Some("add a table: [[data]] with `path = \"…\"`".to_owned())
            }
            Self::ForeignOption { key, objective, known, .. } => {
                let name = key.rsplit('.').next().unwrap_or(key);
                Some(match nearest(name, known) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("docs/objectives.md lists the options of `{objective}`"),
                })
            }
            Self::WrongValue { hint, .. } | Self::Refused { hint, .. } => hint.clone(),
            Self::Exclusive { other, .. } => Some(format!("remove one of them, e.g. `{other}`")),
            Self::Lambda { .. } => Some("one number holds all earlier rounds alike: `lambda = 1.0`".to_owned()),
            _ => None,
        }
    }
}

/// The known word closest to `word`, if it is close enough to be a typing error.
pub(crate) fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    let word = word.replace('_', "-").to_lowercase();
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.as_str())
}

fn suggestion(key: &str, known: &[String], elsewhere: Option<&str>) -> String {
    match (nearest(key, known), elsewhere) {
        (_, Some(section)) => format!("`{key}` belongs in {section}"),
        (Some(name), None) => format!("did you mean `{name}`?"),
        (None, None) if known.len() > FEW => "docs/run-file.md lists the keys".to_owned(),
        (None, None) => format!("known keys: {}", known.join(", ")),
    }
}

/// Names that still fit into one message.
const FEW: usize = 12;

fn listed(names: &[String]) -> String {
    if names.len() > FEW { "not a known name".to_owned() } else { format!("not one of {}", quoted(names)) }
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn counted(known: &[(String, usize)]) -> String {
    if known.is_empty() {
        return "no labelled pairs at all".to_owned();
    }
    let known: Vec<String> = known.iter().map(|(name, pairs)| format!("{name:?} ({pairs} pairs)")).collect();
    format!("only {}", known.join(", "))
}
