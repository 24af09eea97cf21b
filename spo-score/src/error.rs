//! What can go wrong while answers are scored.

/// An error of a scorer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreError {
    /// Nobody has this name.
    #[error("there is no scorer `{found}`; known are {}", known.join(", "))]
    UnknownKind {
        /// The name.
        found: String,
        /// Known names.
        known: Vec<&'static str>,
        /// The nearest of them.
        nearest: Option<&'static str>,
    },
    /// A scorer cannot be made of its options.
    #[error("scorer `{spec}`: {reason}")]
    BadSpec {
        /// The scorer as it was written.
        spec: String,
        /// What is wrong.
        reason: String,
        /// What would be right.
        hint: Option<String>,
    },
    /// A model cannot be opened.
    #[error("model `{name}`: {source}")]
    Model {
        /// The name.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A program cannot be started, or stopped too often.
    #[error("scorer `{scorer}` {reason}")]
    Failed {
        /// The scorer.
        scorer: String,
        /// What it did.
        reason: String,
        /// What to do.
        hint: Option<String>,
    },
    /// An answer that means nothing.
    #[error("scorer `{scorer}` answered {found}, expected {expected}")]
    Garbage {
        /// The scorer.
        scorer: String,
        /// What came.
        found: String,
        /// What should have come.
        expected: String,
    },
    /// A score that is not finite.
    #[error("scorer `{scorer}` gave {id} the score {found}, expected a finite number or null")]
    NotFinite {
        /// The scorer.
        scorer: String,
        /// The item.
        id: String,
        /// The score.
        found: f64,
    },
    /// An answer without a score for the dimension that was asked for.
    #[error("scorer `{scorer}` gave {id} no score for `{dimension}`; it gave {found}")]
    NoDimension {
        /// The scorer.
        scorer: String,
        /// The item.
        id: String,
        /// The dimension.
        dimension: String,
        /// What there was.
        found: String,
    },
    /// An item that is there as tokens only.
    #[error("scorer `{scorer}` reads text, and {id} has token ids only")]
    NoText {
        /// The scorer.
        scorer: String,
        /// The item.
        id: String,
    },
    /// Text that cannot be laid out or tokenised.
    #[error(transparent)]
    Data(#[from] spo_data::DataError),
    /// The user's interruption.
    #[error("interrupted while answers were scored")]
    Interrupted,
}

impl ScoreError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKind { nearest, .. } => {
                Some(nearest.map_or_else(|| "see `spo list scorers`".into(), |name| format!("did you mean `{name}`?")))
            }
            Self::BadSpec { hint, .. } | Self::Failed { hint, .. } => hint.clone(),
            Self::Garbage { .. } => Some(
                "one JSON object per line with id and score (or scores by dimension, or null); print what is no answer \
                 to standard error"
                    .into(),
            ),
            Self::Data(error) => error.hint(),
            _ => None,
        }
    }
}
