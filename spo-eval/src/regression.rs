//! What later rounds do to earlier dimensions: forgetting, and paired differences between two policies.

use serde::{Deserialize, Serialize};

use crate::bootstrap::{Bootstrap, clusters};
use crate::pairwise::checked;
use crate::tally::credit;
use crate::{DimensionScore, EvalError, PairScore, Subset};

/// The score of a policy on a dimension in the scale of the main table.
#[must_use]
pub fn find_score<'a>(scores: &'a [DimensionScore], policy: &str, dimension: &str) -> Option<&'a DimensionScore> {
    scores.iter().find(|score| score.policy == policy && score.dimension == dimension && score.kind.is_main())
}

/// Distinct values of `name` over the scores, in order of first appearance.
fn distinct(scores: &[DimensionScore], name: impl Fn(&DimensionScore) -> &str) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for score in scores {
        if !names.contains(&name(score)) {
            names.push(name(score));
        }
    }
    names
}

/// Policies of the matrix, in order of first appearance.
#[must_use]
pub fn policies(scores: &[DimensionScore]) -> Vec<&str> {
    distinct(scores, |score| &score.policy)
}

/// Dimensions of the matrix, in order of first appearance.
#[must_use]
pub fn dimensions(scores: &[DimensionScore]) -> Vec<&str> {
    distinct(scores, |score| &score.dimension)
}

/// How far a policy is below the best accuracy that it or a policy before it had on a dimension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forgetting {
    /// Policy that is looked at.
    pub policy: String,
    /// Dimension.
    pub dimension: String,
    /// Policy with the best accuracy so far.
    pub best_policy: String,
    /// Its accuracy, 0 to 1.
    pub best: f64,
    /// Accuracy of `policy`, 0 to 1.
    pub now: f64,
    /// `best − now`, never negative.
    pub forgotten: f64,
}

/// Forgetting along `path`, policies from the start to the last round; one entry per policy and dimension that was scored.
#[must_use]
pub fn forgetting(scores: &[DimensionScore], path: &[&str]) -> Vec<Forgetting> {
    let mut entries = Vec::new();
    for dimension in dimensions(scores) {
        let mut best: Option<(&str, f64)> = None;
        for policy in path {
            let score = find_score(scores, policy, dimension).and_then(|score| score.tally(Subset::All));
            let Some(now) = score.map(|tally| tally.accuracy) else {
                continue;
            };
            let (best_policy, best_accuracy) = match best {
                Some((name, accuracy)) if accuracy >= now => (name, accuracy),
                _ => (*policy, now),
            };
            best = Some((best_policy, best_accuracy));
            entries.push(Forgetting {
                policy: (*policy).to_owned(),
                dimension: dimension.to_owned(),
                best_policy: best_policy.to_owned(),
                best: best_accuracy,
                now,
                forgotten: best_accuracy - now,
            });
        }
    }
    entries
}

/// Policy `a` minus policy `b` on the same pairs of one dimension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// Dimension of the pairs.
    pub dimension: String,
    /// First policy.
    pub a: String,
    /// Second policy, subtracted.
    pub b: String,
    /// Which of the dimension's pairs.
    pub subset: Subset,
    /// Number of pairs.
    pub pairs: usize,
    /// Accuracy of `a` minus accuracy of `b`, −1 to 1.
    pub accuracy_difference: f64,
    /// 95 % bootstrap interval of the accuracy difference.
    pub interval: (f64, f64),
    /// Mean margin of `a` minus mean margin of `b`.
    pub margin_difference: f64,
    /// 95 % bootstrap interval of the margin difference.
    pub margin_interval: (f64, f64),
}

impl PairedDifference {
    /// Whether the interval of the accuracy difference contains 0.
    #[must_use]
    pub fn within_noise(&self) -> bool {
        self.interval.0 <= 0.0 && self.interval.1 >= 0.0
    }
}

/// Difference of two policies on the pairs of `subset`, resampled by prompt. `None` if the subset has pairs of fewer
/// than two prompts, which give no interval.
///
/// # Errors
/// Pairs that differ between the two, and what [`crate::score_dimension`] refuses.
pub fn paired_difference(
    dimension: &str,
    a: (&str, &[PairScore]),
    b: (&str, &[PairScore]),
    subset: Subset,
    bootstrap: &Bootstrap,
) -> Result<Option<PairedDifference>, EvalError> {
    let first = checked(a.0, dimension, a.1)?;
    let second = checked(b.0, dimension, b.1)?;
    let unpaired = |example| EvalError::UnpairedExample {
        dimension: dimension.to_owned(),
        a: a.0.to_owned(),
        b: b.0.to_owned(),
        example,
    };
    for (x, y) in first.iter().zip(&second) {
        if x.example != y.example {
            return Err(unpaired(x.example.min(y.example)));
        }
    }
    if let Some(extra) = first.get(second.len()).or_else(|| second.get(first.len())) {
        return Err(unpaired(extra.example));
    }
    let differences: Vec<_> = first
        .iter()
        .zip(&second)
        .filter(|(x, _)| subset.contains(x))
        .map(|(x, y)| (x.cluster(), [credit(x.margin) - credit(y.margin), x.margin - y.margin]))
        .collect();
    let pairs = differences.len();
    let groups = clusters(differences);
    if groups.len() < 2 {
        return Ok(None);
    }
    let [interval, margin_interval] = bootstrap.intervals(&groups)?;
    let mean = |quantity: usize| groups.iter().map(|group| group.sums[quantity]).sum::<f64>() / pairs as f64;
    Ok(Some(PairedDifference {
        dimension: dimension.to_owned(),
        a: a.0.to_owned(),
        b: b.0.to_owned(),
        subset,
        pairs,
        accuracy_difference: mean(0),
        interval,
        margin_difference: mean(1),
        margin_interval,
    }))
}
