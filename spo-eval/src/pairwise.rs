//! Held-out pairs of one dimension under one policy, split into subsets.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::bootstrap::Bootstrap;
use crate::{EvalError, PairScore, ScoreKind, Tally};

/// A named part of a dimension's held-out pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subset {
    /// Every pair.
    All,
    /// Pairs on which the other dimension's label agrees.
    Agreeing,
    /// Pairs on which the other dimension's label is the opposite.
    Conflicting,
    /// Pairs labelled in this dimension only.
    Single,
    /// [`Subset::All`] without boilerplate answers.
    AllSubstantive,
    /// [`Subset::Agreeing`] without boilerplate answers.
    AgreeingSubstantive,
    /// [`Subset::Conflicting`] without boilerplate answers.
    ConflictingSubstantive,
    /// [`Subset::Single`] without boilerplate answers.
    SingleSubstantive,
}

impl Subset {
    /// Every subset, in the order of the report.
    pub const ALL: [Self; 8] = [
        Self::All,
        Self::Agreeing,
        Self::Conflicting,
        Self::Single,
        Self::AllSubstantive,
        Self::AgreeingSubstantive,
        Self::ConflictingSubstantive,
        Self::SingleSubstantive,
    ];

    /// Key in [`DimensionScore::subsets`].
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Agreeing => "agreeing",
            Self::Conflicting => "conflicting",
            Self::Single => "single",
            Self::AllSubstantive => "all-substantive",
            Self::AgreeingSubstantive => "agreeing-substantive",
            Self::ConflictingSubstantive => "conflicting-substantive",
            Self::SingleSubstantive => "single-substantive",
        }
    }

    /// The same part without boilerplate answers.
    #[must_use]
    pub fn substantive(self) -> Self {
        match self {
            Self::All => Self::AllSubstantive,
            Self::Agreeing => Self::AgreeingSubstantive,
            Self::Conflicting => Self::ConflictingSubstantive,
            Self::Single => Self::SingleSubstantive,
            substantive => substantive,
        }
    }

    /// Whether the pair belongs to this part.
    #[must_use]
    pub fn contains(self, pair: &PairScore) -> bool {
        let labels = match self {
            Self::All | Self::AllSubstantive => true,
            Self::Agreeing | Self::AgreeingSubstantive => pair.agreeing == Some(true),
            Self::Conflicting | Self::ConflictingSubstantive => pair.agreeing == Some(false),
            Self::Single | Self::SingleSubstantive => pair.agreeing.is_none(),
        };
        labels && !(pair.boilerplate && self.substantive() == self)
    }
}

/// One policy on one dimension's held-out pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DimensionScore {
    /// Name of the policy.
    pub policy: String,
    /// Preference dimension.
    pub dimension: String,
    /// What the margins measure.
    #[serde(default)]
    pub kind: ScoreKind,
    /// Tally of each non-empty subset, by [`Subset::key`].
    pub subsets: BTreeMap<String, Tally>,
}

impl DimensionScore {
    /// Tally of a subset; `None` if no pair belongs to it.
    #[must_use]
    pub fn tally(&self, subset: Subset) -> Option<&Tally> {
        self.subsets.get(subset.key())
    }

    /// The same numbers under another score kind's name.
    #[must_use]
    pub fn of_kind(self, kind: ScoreKind) -> Self {
        Self { kind, ..self }
    }
}

/// Sorts the pairs by example and refuses what cannot be tallied, so that a result never depends on the order of the input.
pub(crate) fn checked<'a>(
    policy: &str,
    dimension: &str,
    pairs: &'a [PairScore],
) -> Result<Vec<&'a PairScore>, EvalError> {
    if pairs.is_empty() {
        return Err(EvalError::NoPairs { policy: policy.to_owned(), dimension: dimension.to_owned() });
    }
    let mut seen = BTreeSet::new();
    for pair in pairs {
        let (policy, dimension, example) = (policy.to_owned(), dimension.to_owned(), pair.example);
        if !pair.margin.is_finite() {
            return Err(EvalError::NonFiniteMargin { policy, dimension, example, found: pair.margin });
        }
        if !seen.insert(example) {
            return Err(EvalError::DuplicateExample { policy, dimension, example });
        }
    }
    let mut sorted: Vec<_> = pairs.iter().collect();
    sorted.sort_by_key(|pair| pair.example);
    Ok(sorted)
}

/// Tallies one policy on one dimension's pairs, in whole and in every [`Subset`] that has pairs.
///
/// # Errors
/// No pairs, a margin that is not finite, an example given twice, too few resamples.
pub fn score_dimension(
    policy: &str,
    dimension: &str,
    pairs: &[PairScore],
    bootstrap: &Bootstrap,
) -> Result<DimensionScore, EvalError> {
    let pairs = checked(policy, dimension, pairs)?;
    let mut subsets = BTreeMap::new();
    for subset in Subset::ALL {
        let members: Vec<_> = pairs.iter().copied().filter(|pair| subset.contains(pair)).collect();
        if let Some(tally) = Tally::of(&members, bootstrap)? {
            subsets.insert(subset.key().to_owned(), tally);
        }
    }
    Ok(DimensionScore {
        policy: policy.to_owned(),
        dimension: dimension.to_owned(),
        kind: ScoreKind::LogRatio,
        subsets,
    })
}
