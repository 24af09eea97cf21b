//! The front of a conditional policy: what it scores at weights over the whole simplex.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pareto::{front, hypervolume};
use crate::{Bootstrap, EvalError, PairScore};

/// A conditional policy at some of its weights, in accuracy on held-out pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrontSummary {
    /// Name of the policy.
    pub policy: String,
    /// The dimensions that are weighed.
    pub dimensions: Vec<String>,
    /// What it scores at each of the weights.
    pub points: Vec<FrontPoint>,
    /// Share of the unit cube that the accuracies of all points dominate.
    pub hypervolume: f64,
    /// 95 % bootstrap interval over prompts, all points on the same resamples.
    pub interval: (f64, f64),
    /// Of each dimension: rank correlation (Spearman) of its weight with its accuracy over all points.
    pub monotone: Vec<f64>,
    /// 95 % bootstrap interval of each.
    pub monotone_intervals: Vec<(f64, f64)>,
}

/// A conditional policy at one of its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrontPoint {
    /// The weight of each dimension; they sum to one.
    pub weights: Vec<f64>,
    /// Accuracy of each dimension, 0 to 1; ties count half.
    pub accuracy: Vec<f64>,
    /// 95 % bootstrap interval of each, over prompts.
    pub intervals: Vec<(f64, f64)>,
    /// Mean margin `Δ log(π/π_0)` of each, in nats.
    pub margins: Vec<f64>,
    /// Whether no other point is better in one dimension and as good in the others.
    pub on_front: bool,
}

/// Weights over the whole simplex, `[points][dimensions]`: 11 for two dimensions, 28 for three, the corners and the middle
/// beyond.
#[must_use]
pub fn front_weights(dimensions: usize) -> Vec<Vec<f64>> {
    let steps = match dimensions {
        2 => 10,
        3 => 6,
        _ => 1,
    };
    let mut all = vec![];
    compositions(steps, dimensions, &mut vec![], &mut all);
    let scaled = |parts: Vec<usize>| parts.into_iter().map(|part| part as f64 / steps as f64).collect();
    let mut points: Vec<Vec<f64>> = all.into_iter().map(scaled).collect();
    if dimensions > 3 {
        points.push(vec![1.0 / dimensions as f64; dimensions]);
    }
    points
}

/// Every way to write `left` as an ordered sum of `parts` numbers, behind `begun`.
fn compositions(left: usize, parts: usize, begun: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
    if parts == 1 {
        all.push([begun.as_slice(), &[left]].concat());
        return;
    }
    for part in (0..=left).rev() {
        begun.push(part);
        compositions(left - part, parts - 1, begun, all);
        begun.pop();
    }
}

/// Sums of one dimension at one point over some pairs.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    pairs: f64,
    correct: f64,
    margin: f64,
}

impl Sums {
    fn of(score: &PairScore) -> Self {
        let correct = if score.margin == 0.0 { 0.5 } else { f64::from(u8::from(score.margin > 0.0)) };
        Self { pairs: 1.0, correct, margin: score.margin }
    }

    fn add(&mut self, other: Self, times: f64) {
        self.pairs += times * other.pairs;
        self.correct += times * other.correct;
        self.margin += times * other.margin;
    }
}

/// What `policy` scores at each of the weights: `scores` are those of the pairs of each dimension, by point.
///
/// # Errors
/// A dimension without pairs, a margin that is not finite, too few resamples.
pub fn score_front(
    policy: &str,
    dimensions: &[String],
    scores: &[(Vec<f64>, Vec<Vec<PairScore>>)],
    bootstrap: &Bootstrap,
) -> Result<FrontSummary, EvalError> {
    check(dimensions, scores)?;
    let cells = dimensions.len() * scores.len();
    let mut clusters: BTreeMap<_, Vec<Sums>> = BTreeMap::new();
    let by_cell = scores.iter().flat_map(|(_, by_dimension)| by_dimension).enumerate();
    for (cell, score) in by_cell.flat_map(|(cell, scores)| scores.iter().map(move |score| (cell, score))) {
        clusters.entry(score.cluster()).or_insert_with(|| vec![Sums::default(); cells])[cell].add(Sums::of(score), 1.0);
    }
    let clusters: Vec<Vec<Sums>> = clusters.into_values().collect();
    let weights: Vec<&[f64]> = scores.iter().map(|(weights, _)| weights.as_slice()).collect();
    let total = |times: &[usize]| {
        let mut sums = vec![Sums::default(); cells];
        for (cluster, &times) in clusters.iter().zip(times).filter(|(_, times)| **times > 0) {
            sums.iter_mut().zip(cluster).for_each(|(sum, own)| sum.add(*own, times as f64));
        }
        sums
    };
    let whole = total(&vec![1; clusters.len()]);
    let figures = Figures::of(&whole, &weights)?;
    let intervals = bootstrap.statistics(clusters.len(), |times| Ok(Figures::of(&total(times), &weights)?.flat()))?;
    let (of_accuracy, rest) = intervals.split_at(cells);
    let on_front = front(&figures.accuracy)?;
    let width = dimensions.len();
    let points = weights.iter().enumerate().map(|(index, weights)| FrontPoint {
        weights: weights.to_vec(),
        accuracy: figures.accuracy[index].clone(),
        intervals: of_accuracy[index * width..(index + 1) * width].to_vec(),
        margins: whole[index * width..(index + 1) * width].iter().map(|sums| sums.margin / sums.pairs).collect(),
        on_front: on_front.contains(&index),
    });
    Ok(FrontSummary {
        policy: policy.to_owned(),
        dimensions: dimensions.to_vec(),
        points: points.collect(),
        hypervolume: figures.hypervolume,
        interval: rest[0],
        monotone: figures.monotone,
        monotone_intervals: rest[1..].to_vec(),
    })
}

fn check(dimensions: &[String], scores: &[(Vec<f64>, Vec<Vec<PairScore>>)]) -> Result<(), EvalError> {
    for (point, (weights, by_dimension)) in scores.iter().enumerate() {
        for (found, name) in [(weights.len(), "weights"), (by_dimension.len(), "scores")] {
            if found != dimensions.len() {
                let name = format!("{name} of point {point}");
                return Err(EvalError::LengthMismatch { name, found, expected: dimensions.len() });
            }
        }
        for (name, scores) in dimensions.iter().zip(by_dimension) {
            if scores.is_empty() {
                return Err(EvalError::NoValues { name: name.clone() });
            }
            if let Some((index, score)) = scores.iter().enumerate().find(|(_, score)| !score.margin.is_finite()) {
                return Err(EvalError::NonFiniteValue { name: name.clone(), index, found: score.margin });
            }
        }
    }
    Ok(())
}

/// What is measured of one (re)sample of the prompts.
struct Figures {
    /// Of each point the accuracy of each dimension.
    accuracy: Vec<Vec<f64>>,
    hypervolume: f64,
    /// Of each dimension.
    monotone: Vec<f64>,
}

impl Figures {
    fn of(sums: &[Sums], weights: &[&[f64]]) -> Result<Self, EvalError> {
        let width = weights[0].len();
        // A resample without a pair of a dimension says nothing of it: the middle.
        let share = |sums: &Sums| if sums.pairs > 0.0 { sums.correct / sums.pairs } else { 0.5 };
        let accuracy: Vec<Vec<f64>> = sums.chunks(width).map(|sums| sums.iter().map(share).collect()).collect();
        let column = |rows: &[&[f64]], dimension: usize| rows.iter().map(|row| row[dimension]).collect::<Vec<f64>>();
        let rows: Vec<&[f64]> = accuracy.iter().map(Vec::as_slice).collect();
        let of = |dimension| correlation(&ranks(&column(weights, dimension)), &ranks(&column(&rows, dimension)));
        let monotone = (0..width).map(of).collect();
        Ok(Self { hypervolume: hypervolume(&accuracy, &vec![0.0; width])?, monotone, accuracy })
    }

    fn flat(self) -> Vec<f64> {
        self.accuracy.into_iter().flatten().chain([self.hypervolume]).chain(self.monotone).collect()
    }
}

/// Ranks from 0; equal values share their mean rank.
fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let equal = values.iter().filter(|other| *other == value).count();
        below as f64 + (equal as f64 - 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

/// Pearson's correlation; 0 where one side is constant.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (of_a, of_b) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(x, y)| f(x - of_a, y - of_b)).sum::<f64>();
    let scale = (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    if scale == 0.0 { 0.0 } else { sum(&|x, y| x * y) / scale }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn points_cover_the_simplex() {
        for (dimensions, points) in [(2, 11), (3, 28), (4, 5)] {
            let all = front_weights(dimensions);
            assert_eq!(all.len(), points);
            assert!(all.iter().all(|weights| (weights.iter().sum::<f64>() - 1.0).abs() < 1e-12));
            for corner in 0..dimensions {
                assert!(all.iter().any(|weights| weights[corner] == 1.0));
            }
        }
        assert_eq!(front_weights(2)[0], [1.0, 0.0]);
    }

    /// 20 prompts of one pair a dimension; of the pairs of dimension k as many are right as the weight says.
    fn scores(weights: &[f64]) -> Vec<Vec<PairScore>> {
        let pair = |weight: &f64, index: usize| PairScore {
            example: index,
            margin: if (index as f64) < 20.0 * weight { 2.0 } else { -1.0 },
            prompt: Some(index as u64),
            ..PairScore::default()
        };
        weights.iter().map(|weight| (0..20).map(|index| pair(weight, index)).collect()).collect()
    }

    fn names() -> Vec<String> {
        ["a", "b"].map(String::from).to_vec()
    }

    #[test]
    fn a_perfect_trade_is_a_staircase() {
        let points: Vec<_> = front_weights(2).into_iter().map(|weights| (weights.clone(), scores(&weights))).collect();
        let found = score_front("p", &names(), &points, &Bootstrap::default()).unwrap();
        // Steps of 0.1 below the line x + y = 1.
        assert!((found.hypervolume - 0.45).abs() < 1e-9, "{}", found.hypervolume);
        assert!(found.interval.0 < 0.45 && found.interval.1 > 0.45, "{:?}", found.interval);
        assert!(found.monotone.iter().all(|rank| (rank - 1.0).abs() < 1e-12), "{:?}", found.monotone);
        assert!(found.points.iter().all(|point| point.on_front));
        let middle = &found.points[5];
        assert_eq!((middle.accuracy[0], middle.margins[1]), (0.5, 0.5));
        let [low, high] = [middle.intervals[0].0, middle.intervals[0].1];
        assert!(low > 0.2 && low < 0.4 && high > 0.6 && high < 0.8, "{low} {high}");
    }

    #[test]
    fn a_point_that_ignores_its_weights_has_no_rank() {
        let points: Vec<_> = front_weights(2).into_iter().map(|weights| (weights, scores(&[0.7, 0.7]))).collect();
        let found = score_front("p", &names(), &points, &Bootstrap::default()).unwrap();
        assert!((found.hypervolume - 0.49).abs() < 1e-9);
        assert_eq!(found.monotone, [0.0, 0.0]);
    }

    #[test]
    fn bad_scores_are_errors() {
        let mut points = vec![(vec![0.5, 0.5], scores(&[0.5, 0.5]))];
        points[0].1[1].clear();
        assert!(matches!(score_front("p", &names(), &points, &Bootstrap::default()), Err(EvalError::NoValues { .. })));
        points[0].1.pop();
        let found = score_front("p", &names(), &points, &Bootstrap::default());
        assert!(matches!(found, Err(EvalError::LengthMismatch { .. })));
    }
}
