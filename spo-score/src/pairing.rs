//! From scores of several answers to one prompt to pairs with a preference per dimension.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Scores;

/// Which answers to one prompt become pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pairing {
    /// The best with the worst, for each dimension.
    #[default]
    BestWorst,
    /// The best with one of the others, which the row's number decides, for each dimension.
    BestRandom,
    /// Every two answers.
    All,
}

/// Two answers to one prompt with what the scores say of them.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredPair {
    /// Index of the first answer.
    pub a: usize,
    /// Index of the second answer.
    pub b: usize,
    /// 1 where the first answer is better, −1 where the second is, 0 at a tie; a dimension with a smaller gap than asked
    /// for is not there.
    pub prefs: BTreeMap<String, i8>,
    /// Both scores, by dimension.
    pub scores: BTreeMap<String, [f64; 2]>,
}

/// The scores of one prompt's answers by dimension; `name` is that of the one number. An answer without a score is left
/// out everywhere.
pub fn by_dimension(scores: &[Option<Scores>], name: &str) -> BTreeMap<String, Vec<(usize, f64)>> {
    let mut dimensions: BTreeMap<String, Vec<(usize, f64)>> = BTreeMap::new();
    for (answer, scores) in scores.iter().enumerate() {
        let Some(scores) = scores else { continue };
        let one = scores.score.map(|score| (name.to_owned(), score));
        // A number for the dimension itself counts more than the one number.
        let all: BTreeMap<String, f64> = one.into_iter().chain(scores.by_dimension.clone()).collect();
        for (dimension, score) in all {
            dimensions.entry(dimension).or_default().push((answer, score));
        }
    }
    dimensions
}

/// The pairs of one prompt's answers, each two answers once, without those whose gap is below `min_gap` or nothing in every
/// dimension. `row` decides what [`Pairing::BestRandom`] draws.
pub fn pairs(scores: &[Option<Scores>], name: &str, pairing: Pairing, min_gap: f64, row: u64) -> Vec<ScoredPair> {
    let dimensions = by_dimension(scores, name);
    let mut chosen: BTreeSet<(usize, usize)> = BTreeSet::new();
    for scored in dimensions.values().filter(|scored| scored.len() > 1) {
        // Of equal scores the earlier answer, so that nothing depends on sorting.
        let best = scored.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
        let worst = scored.iter().copied().reduce(|a, b| if b.1 < a.1 { b } else { a });
        let (Some((best, _)), Some((worst, _))) = (best, worst) else { continue };
        match pairing {
            Pairing::BestWorst => insert(&mut chosen, best, worst),
            Pairing::BestRandom => {
                let others: Vec<usize> = scored.iter().map(|(answer, _)| *answer).filter(|a| *a != best).collect();
                insert(&mut chosen, best, others[(row % others.len() as u64) as usize]);
            }
            Pairing::All => {
                for (index, (one, _)) in scored.iter().enumerate() {
                    scored[index + 1..].iter().for_each(|(other, _)| insert(&mut chosen, *one, *other));
                }
            }
        }
    }
    let pair = |(a, b): (usize, usize)| ScoredPair::new(a, b, &dimensions, min_gap);
    chosen.into_iter().map(pair).filter(|pair| pair.prefs.values().any(|sign| *sign != 0)).collect()
}

fn insert(chosen: &mut BTreeSet<(usize, usize)>, one: usize, other: usize) {
    if one != other {
        chosen.insert((one.min(other), one.max(other)));
    }
}

impl ScoredPair {
    fn new(a: usize, b: usize, dimensions: &BTreeMap<String, Vec<(usize, f64)>>, min_gap: f64) -> Self {
        let (mut prefs, mut scores) = (BTreeMap::new(), BTreeMap::new());
        for (dimension, scored) in dimensions {
            let of = |answer: usize| scored.iter().find(|(index, _)| *index == answer).map(|(_, score)| *score);
            let (Some(one), Some(other)) = (of(a), of(b)) else { continue };
            scores.insert(dimension.clone(), [one, other]);
            let gap = one - other;
            if gap == 0.0 {
                prefs.insert(dimension.clone(), 0);
            } else if gap.abs() >= min_gap {
                prefs.insert(dimension.clone(), if gap > 0.0 { 1 } else { -1 });
            }
        }
        Self { a, b, prefs, scores }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(score: f64) -> Option<Scores> {
        Some(Scores::one(score))
    }

    fn two(honesty: f64, style: f64) -> Option<Scores> {
        let by_dimension = [("honesty".to_string(), honesty), ("style".to_string(), style)].into();
        Some(Scores { score: None, by_dimension })
    }

    #[test]
    fn the_best_meets_the_worst() {
        let scores = [one(0.5), None, one(-1.0), one(2.0), one(2.0)];
        let found = pairs(&scores, "quality", Pairing::BestWorst, 0.0, 0);
        let prefs = [("quality".to_string(), -1)].into();
        let values = [("quality".to_string(), [-1.0, 2.0])].into();
        assert_eq!(found, [ScoredPair { a: 2, b: 3, prefs, scores: values }]);
        assert!(pairs(&scores, "quality", Pairing::BestWorst, 3.5, 0).is_empty());
        assert!(pairs(&[one(1.0), one(1.0)], "quality", Pairing::BestWorst, 0.0, 0).is_empty());
        assert!(pairs(&[one(1.0), None], "quality", Pairing::All, 0.0, 0).is_empty());
    }

    #[test]
    fn each_dimension_has_its_pair_and_labels_the_others() {
        let scores = [two(1.0, 0.0), two(0.0, 2.0), two(0.5, 0.0)];
        let found = pairs(&scores, "quality", Pairing::BestWorst, 0.0, 0);
        // Honesty: 0 and 1; style: 1 and 0: one pair.
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].prefs, [("honesty".to_string(), 1), ("style".to_string(), -1)].into());
        let all = pairs(&scores, "quality", Pairing::All, 0.6, 0);
        let shown: Vec<_> = all.iter().map(|pair| (pair.a, pair.b, pair.prefs.clone())).collect();
        let tie = [("style".to_string(), 0)];
        assert_eq!(shown.len(), 2, "0 and 2 are a tie in style and too near in honesty: {tie:?}");
        assert_eq!(shown[1].2, [("style".to_string(), 1)].into());
    }

    #[test]
    fn the_row_decides_who_meets_the_best() {
        let scores = [one(3.0), one(1.0), one(2.0)];
        let other = |row| pairs(&scores, "q", Pairing::BestRandom, 0.0, row)[0].b;
        assert_eq!((other(0), other(1), other(2)), (1, 2, 1));
    }
}
