//! What can be wrong with the numbers handed to this crate.

/// A refusal to turn bad numbers into a result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// No pair was given.
    #[error("policy '{policy}' has no held-out pairs of dimension '{dimension}'")]
    NoPairs {
        /// Policy that was to be scored.
        policy: String,
        /// Dimension without pairs.
        dimension: String,
    },
    /// A margin is NaN or infinite.
    #[error(
        "policy '{policy}', dimension '{dimension}': example {example} has margin {found}, expected a finite number"
    )]
    NonFiniteMargin {
        /// Policy that was scored.
        policy: String,
        /// Dimension of the pair.
        dimension: String,
        /// Example number of the pair.
        example: usize,
        /// The margin.
        found: f64,
    },
    /// The same example occurs twice in one list of pairs.
    #[error("policy '{policy}', dimension '{dimension}': example {example} occurs twice")]
    DuplicateExample {
        /// Policy that was scored.
        policy: String,
        /// Dimension of the pair.
        dimension: String,
        /// The repeated example number.
        example: usize,
    },
    /// Two policies were not scored on the same pairs.
    #[error(
        "dimension '{dimension}': example {example} was scored under one of '{a}' and '{b}' only, expected the same pairs under both"
    )]
    UnpairedExample {
        /// Dimension that was compared.
        dimension: String,
        /// First policy.
        a: String,
        /// Second policy.
        b: String,
        /// Example that only one of them has.
        example: usize,
    },
    /// The two dimensions that are held against each other are one.
    #[error("STEER between '{dimension}' and '{dimension}', expected two dimensions")]
    OneDimension {
        /// The dimension.
        dimension: String,
    },
    /// Too few resamples for the tails of the interval.
    #[error("found {found} bootstrap resamples, expected at least {expected}")]
    TooFewResamples {
        /// Requested number.
        found: usize,
        /// Smallest accepted number.
        expected: usize,
    },
    /// A KL estimate needs a standard error, so at least two samples.
    #[error("KL of '{policy}' to '{reference}': found {found} samples, expected at least 2")]
    TooFewSamples {
        /// Sampled policy.
        policy: String,
        /// Reference policy.
        reference: String,
        /// Number of samples.
        found: usize,
    },
    /// A log-ratio is NaN, infinite or too negative for `exp`.
    #[error(
        "KL of '{policy}' to '{reference}': sample {sample} has log-ratio {found}, expected a finite number above -700"
    )]
    LogRatioOutOfRange {
        /// Sampled policy.
        policy: String,
        /// Reference policy.
        reference: String,
        /// Index of the sample.
        sample: usize,
        /// The log-ratio.
        found: f64,
    },
    /// A value of a list is NaN or infinite.
    #[error("{name}: value {index} is {found}, expected a finite number")]
    NonFiniteValue {
        /// What the list holds.
        name: String,
        /// Index of the value.
        index: usize,
        /// The value.
        found: f64,
    },
    /// A list is empty.
    #[error("{name}: found no values, expected at least one")]
    NoValues {
        /// What the list should hold.
        name: String,
    },
    /// Two lists that belong together differ in length.
    #[error("{name}: found {found} values, expected {expected}")]
    LengthMismatch {
        /// What the list holds.
        name: String,
        /// Its length.
        found: usize,
        /// The length it must have.
        expected: usize,
    },
    /// Parts of a study that are not of one.
    #[error("parts of a study: {problem}")]
    StudyParts {
        /// What is wrong.
        problem: String,
    },
    /// A summary could not be written as or read from JSON.
    #[error("run summary: {problem} (line {line}, column {column})")]
    Json {
        /// The parser's words.
        problem: String,
        /// Line in the JSON text, from 1.
        line: usize,
        /// Column in the JSON text, from 1.
        column: usize,
    },
    /// The summary was written by another version of the format.
    #[error("run summary: found schema {found}, expected {expected}")]
    Schema {
        /// Schema number in the text.
        found: u32,
        /// Schema number that is understood.
        expected: u32,
    },
}

impl EvalError {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoPairs { dimension, .. } => {
                return Some(format!(
                    "add held-out rows labelled along '{dimension}', or leave it out of the evaluation"
                ));
            }
            Self::NonFiniteMargin { .. } | Self::LogRatioOutOfRange { .. } => {
                "a policy gives an answer a non-finite log-probability: training has probably diverged"
            }
            Self::OneDimension { .. } => "pairs are opposed where two dimensions prefer different answers",
            Self::DuplicateExample { .. } => "number each held-out row once",
            Self::UnpairedExample { .. } => "score both policies on the same held-out file",
            Self::TooFewResamples { .. } => "a 95 % interval needs at least one resample in each tail; 2000 is usual",
            Self::TooFewSamples { .. } => "raise the number of sampled prompts",
            Self::StudyParts { .. } => {
                "join parts of one study file, each run with seeds of its own (`spo study --seeds`)"
            }
            Self::Json { .. } => "the numbers of a run must be finite; was the file edited or cut off?",
            Self::Schema { .. } => "read it with the version of spo that wrote it",
            Self::NonFiniteValue { .. } | Self::NoValues { .. } | Self::LengthMismatch { .. } => {
                return None;
            }
        };
        Some(text.to_owned())
    }
}
