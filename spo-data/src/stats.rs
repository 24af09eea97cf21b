//! Numbers about a dataset that a user should see before training.

use std::collections::{BTreeMap, HashMap};

use crate::{Dataset, Example, RowHash};

/// What [`Dataset::stats`] finds.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DatasetStats {
    /// Examples.
    pub examples: usize,
    /// Tokens of all prompts and answers.
    pub tokens: usize,
    /// Tokens per prompt.
    pub prompt_lengths: Lengths,
    /// Tokens per answer.
    pub answer_lengths: Lengths,
    /// Tokens of a prompt with its longest answer: what a context must hold.
    pub row_lengths: Lengths,
    /// Numbers per dimension.
    pub dimensions: BTreeMap<String, DimensionStats>,
    /// Examples with the tokens of an earlier one, as (later id, earlier id).
    pub duplicates: Vec<(String, String)>,
    /// Duplicates whose label contradicts the earlier example's, as (later id, earlier id, dimension).
    pub contradictions: Vec<(String, String, String)>,
}

/// How labels of a dimension spread and how they depend on length.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DimensionStats {
    /// Pairs with a chosen and a rejected answer.
    pub pairs: usize,
    /// Ties.
    pub ties: usize,
    /// Pairs whose chosen answer is longer.
    pub chosen_longer: usize,
    /// Pairs of equal length.
    pub same_length: usize,
    /// Correlation of preference and length difference over pairs in both orders, from -1 (the shorter wins)
    /// to 1 (the longer wins): mean difference over root mean square. `None` if all lengths are equal.
    pub length_correlation: Option<f64>,
}

/// Distribution of lengths in tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Lengths {
    /// Shortest.
    pub min: usize,
    /// Median (the lower of two).
    pub median: usize,
    /// 90 of 100 are not longer.
    pub p90: usize,
    /// 99 of 100 are not longer.
    pub p99: usize,
    /// Longest.
    pub max: usize,
    /// Counts by power of two: entry `k` counts lengths below `2^k` that no earlier entry counts.
    pub histogram: Vec<usize>,
}

impl Lengths {
    fn of(mut lengths: Vec<usize>) -> Self {
        lengths.sort_unstable();
        let Some(last) = lengths.len().checked_sub(1) else { return Self::default() };
        let mut histogram = Vec::new();
        for length in &lengths {
            let bin = (usize::BITS - length.leading_zeros()) as usize;
            histogram.resize(histogram.len().max(bin + 1), 0);
            histogram[bin] += 1;
        }
        let quantile = |percent: usize| lengths[(last * percent) / 100];
        Self {
            min: lengths[0],
            median: quantile(50),
            p90: quantile(90),
            p99: quantile(99),
            max: lengths[last],
            histogram,
        }
    }
}

impl Dataset {
    /// Counts, lengths, label-length dependence and duplicates.
    pub fn stats(&self) -> DatasetStats {
        let answers = || self.examples.iter().flat_map(|example| &example.answers);
        let longest = |example: &Example| example.answers.iter().map(|answer| answer.len()).max().unwrap_or(0);
        let (duplicates, contradictions) = self.duplicates();
        DatasetStats {
            examples: self.examples.len(),
            tokens: self.examples.iter().map(Example::tokens).sum(),
            prompt_lengths: Lengths::of(self.examples.iter().map(|e| e.prompt.len()).collect()),
            answer_lengths: Lengths::of(answers().map(|answer| answer.len()).collect()),
            row_lengths: Lengths::of(self.examples.iter().map(|e| e.prompt.len() + longest(e)).collect()),
            dimensions: self
                .dimensions()
                .into_iter()
                .map(|(name, count)| {
                    let stats = self.dimension_stats(&name, count.pairs, count.ties);
                    (name, stats)
                })
                .collect(),
            duplicates,
            contradictions,
        }
    }

    fn dimension_stats(&self, dimension: &str, pairs: usize, ties: usize) -> DimensionStats {
        let differences: Vec<f64> = self
            .pairs(dimension)
            .into_iter()
            .map(|pair| {
                let answers = &self.examples[pair.example].answers;
                answers[pair.chosen].len() as f64 - answers[pair.rejected].len() as f64
            })
            .collect();
        let squares: f64 = differences.iter().map(|difference| difference * difference).sum();
        let count = differences.len() as f64;
        DimensionStats {
            pairs,
            ties,
            chosen_longer: differences.iter().filter(|difference| **difference > 0.0).count(),
            same_length: differences.iter().filter(|difference| **difference == 0.0).count(),
            length_correlation: (squares > 0.0).then(|| differences.iter().sum::<f64>() / (count * squares).sqrt()),
        }
    }

    /// Examples with the same prompt and the same set of answers, in whatever order.
    #[allow(clippy::type_complexity)]
    fn duplicates(&self) -> (Vec<(String, String)>, Vec<(String, String, String)>) {
        let mut seen: HashMap<Vec<RowHash>, (&Example, Vec<RowHash>)> = HashMap::new();
        let (mut duplicates, mut contradictions) = (Vec::new(), Vec::new());
        for example in &self.examples {
            let hashes: Vec<RowHash> = (0..example.answers.len()).map(|k| example.answer_hash(k)).collect();
            let mut key = hashes.clone();
            key.sort_unstable();
            let Some((earlier, earlier_hashes)) = seen.get(&key) else {
                seen.insert(key, (example, hashes));
                continue;
            };
            duplicates.push((example.id.clone(), earlier.id.clone()));
            for dimension in example.dimensions() {
                let (Some(now), Some(then)) = (example.pair(dimension), earlier.pair(dimension)) else {
                    continue;
                };
                if hashes[now.0] == earlier_hashes[then.1] && hashes[now.1] == earlier_hashes[then.0] {
                    let row = (example.id.clone(), earlier.id.clone(), dimension.to_string());
                    contradictions.push(row);
                }
            }
        }
        (duplicates, contradictions)
    }

    /// Examples here whose prompt another dataset has too, as (id here, id there): for train and test.
    pub fn shared_prompts(&self, other: &Dataset) -> Vec<(String, String)> {
        let prompts: HashMap<&[u32], &str> =
            other.examples.iter().rev().map(|example| (example.prompt.as_slice(), example.id.as_str())).collect();
        let shared =
            |example: &Example| prompts.get(example.prompt.as_slice()).map(|id| (example.id.clone(), id.to_string()));
        self.examples.iter().filter_map(shared).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Preference;

    fn example(id: &str, prompt: u32, answers: [&[u32]; 2], label: Preference) -> Example {
        Example {
            id: id.into(),
            prompt: [prompt].into(),
            answers: answers.iter().map(|answer| (*answer).into()).collect(),
            labels: std::sync::Arc::new([("help".to_string(), label)].into()),
            ..Example::default()
        }
    }

    #[test]
    fn lengths_duplicates_and_contradictions() {
        let (long, short): (&[u32], &[u32]) = (&[1, 2, 3], &[4]);
        let data = Dataset {
            examples: vec![
                example("a", 1, [long, short], Preference::First),
                example("b", 1, [short, long], Preference::Second),
                example("c", 1, [short, long], Preference::First),
                example("d", 2, [short, long], Preference::Tie),
            ],
            ..Dataset::default()
        };
        let stats = data.stats();
        let id = |id: &str| id.to_string();
        assert_eq!(stats.duplicates, [(id("b"), id("a")), (id("c"), id("a"))]);
        assert_eq!(stats.contradictions, [(id("c"), id("a"), id("help"))]);
        let help = &stats.dimensions["help"];
        assert_eq!((help.pairs, help.ties, help.chosen_longer, help.same_length), (3, 1, 2, 0));
        assert!((help.length_correlation.unwrap() - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((stats.tokens, stats.row_lengths.max, stats.answer_lengths.median), (20, 4, 1));
        assert_eq!(stats.answer_lengths.histogram, [0, 4, 4]);
        let other = Dataset { examples: vec![data.examples[3].clone()], ..Dataset::default() };
        assert_eq!(other.shared_prompts(&data), [(id("d"), id("d"))]);
        assert!(Dataset::default().stats().dimensions.is_empty());
    }
}
