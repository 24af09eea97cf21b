//! What can go wrong in this crate.

use thiserror::Error;

/// An error of this crate: what was found where, and what was expected.
#[derive(Debug, Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum CoreError {
    /// No objective has this name.
    #[error("no objective is called `{name}`")]
    UnknownObjective {
        /// The name that was asked for.
        name: String,
        /// The nearest name in the registry, if one is near.
        nearest: Option<&'static str>,
    },
    /// The objective exists, but takes data of another shape.
    #[error("objective `{name}` takes {takes} data, not {wanted} data")]
    WrongShape {
        /// The objective.
        name: String,
        /// The data it takes: `paired`, `unpaired`, `list-wise`, `pairwise reward` or `prompt`.
        takes: &'static str,
        /// The data it was asked for.
        wanted: &'static str,
    },
    /// An option that the objective does not have.
    #[error("objective `{objective}` has no option `{key}` (it has: {known})")]
    UnknownOption {
        /// The objective.
        objective: String,
        /// The key found.
        key: String,
        /// The keys expected, joined by commas.
        known: String,
        /// The nearest known key, if one is near.
        nearest: Option<&'static str>,
    },
    /// An option with a value of the wrong type or out of its range.
    #[error("option `{key}` of objective `{objective}`: found {found}, expected {expected}")]
    InvalidOption {
        /// The objective.
        objective: String,
        /// The option.
        key: String,
        /// The value found.
        found: String,
        /// What would be accepted.
        expected: String,
    },
    /// An input that the objective needs is absent.
    #[error("objective `{objective}` needs {input}, which the data do not have")]
    MissingInput {
        /// The objective.
        objective: String,
        /// The input, in words.
        input: String,
    },
    /// An input with the wrong number of entries.
    #[error("{input}: found {found} entries, expected {expected}")]
    Length {
        /// The input, in words.
        input: String,
        /// Entries found.
        found: usize,
        /// Entries expected.
        expected: usize,
    },
    /// An input that is not a finite number or lies outside of its range.
    #[error("{input}, row {row}: found {found}, expected {expected}")]
    InvalidInput {
        /// The input, in words.
        input: String,
        /// Zero-based row (a pair, an answer or a list).
        row: usize,
        /// The value found.
        found: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A line of a table that is no JSON object, or a value of another type than expected.
    #[error("line {line}: {found}, expected {expected}")]
    Row {
        /// One-based line of the input.
        line: usize,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A line of a table without a key that it needs.
    #[error("line {line}: no `{key}` (it has: {found})")]
    MissingKey {
        /// One-based line of the input.
        line: usize,
        /// The key that is needed.
        key: &'static str,
        /// The keys that are there, joined by commas.
        found: String,
        /// Why it is needed.
        reason: String,
    },
    /// The result left the range of the numbers.
    #[error("objective `{objective}`, row {row}: {quantity} is {found}")]
    NotFinite {
        /// The objective.
        objective: String,
        /// Zero-based row.
        row: usize,
        /// Which result.
        quantity: &'static str,
        /// The value found.
        found: f64,
    },
    /// The device could not give a result back.
    #[error("reading {what} from the device failed: {reason}")]
    Device {
        /// What was read.
        what: &'static str,
        /// The backend's message.
        reason: String,
    },
}

impl CoreError {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownObjective { nearest: Some(name), .. } => Some(format!("did you mean `{name}`?")),
            Self::UnknownObjective { .. } => Some("`spo list objectives` shows every name".into()),
            Self::UnknownOption { nearest: Some(key), .. } => Some(format!("did you mean `{key}`?")),
            Self::MissingKey { reason, .. } => Some(reason.clone()),
            Self::WrongShape { takes, .. } => Some(format!("give {takes} rows, or choose another objective")),
            Self::NotFinite { .. } => {
                Some("the log-probabilities of this row are extreme: look at the row, or choose a bounded loss".into())
            }
            _ => None,
        }
    }
}
