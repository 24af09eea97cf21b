//! What one dimension's labels say, in the shapes that losses take: single answers, lists, preferred answers.

use std::collections::BTreeSet;

use crate::{Dataset, Example, Preference};

/// An answer judged along one dimension, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerRef {
    /// Index into [`Dataset::examples`].
    pub example: usize,
    /// Index of the answer.
    pub answer: usize,
    /// Whether the answer is wanted.
    pub desirable: bool,
}

impl Example {
    /// The label of an example with one answer: whether that answer is desirable.
    pub fn desirable(&self, dimension: &str) -> Option<bool> {
        match (self.answers.len(), self.labels.get(dimension)?) {
            (1, Preference::First) => Some(true),
            (1, Preference::Second) => Some(false),
            _ => None,
        }
    }

    /// The scores of a list of two or more answers, if each has one and they are not all the same.
    pub fn list_scores(&self, dimension: &str) -> Option<&[f32]> {
        let scores = self.scores.get(dimension)?.as_slice();
        let complete = scores.len() == self.answers.len() && scores.len() > 1;
        (complete && scores.iter().any(|score| *score != scores[0])).then_some(scores)
    }

    /// By how much the chosen answer's score exceeds the rejected one's, if both have a score.
    pub fn score_difference(&self, dimension: &str, chosen: usize, rejected: usize) -> Option<f32> {
        let scores = self.scores.get(dimension)?;
        Some(scores.get(chosen)? - scores.get(rejected)?)
    }
}

impl Dataset {
    /// The judged answers of a dimension in example order. A pair counts as two: the chosen answer is desirable, the
    /// rejected one is not.
    pub fn answers(&self, dimension: &str) -> Vec<AnswerRef> {
        let of = |(index, example): (usize, &Example)| {
            let judged = move |(answer, desirable)| AnswerRef { example: index, answer, desirable };
            let found = match (example.desirable(dimension), example.pair(dimension)) {
                (Some(desirable), _) => vec![(0, desirable)],
                (None, Some((chosen, rejected))) => vec![(chosen, true), (rejected, false)],
                (None, None) => vec![],
            };
            found.into_iter().map(judged)
        };
        self.examples.iter().enumerate().flat_map(of).collect()
    }

    /// Names of the dimensions along which some answer is judged, in order.
    pub fn judged_dimensions(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self.examples.iter().flat_map(Example::dimensions).collect();
        names.into_iter().filter(|name| !self.answers(name).is_empty()).map(str::to_owned).collect()
    }

    /// The examples that are scored lists along a dimension, in order.
    pub fn lists(&self, dimension: &str) -> Vec<usize> {
        let scored = |(index, example): (usize, &Example)| example.list_scores(dimension).map(|_| index);
        self.examples.iter().enumerate().filter_map(scored).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn example(answers: usize, label: Option<Preference>, scores: &[f32]) -> Example {
        let name = || "help".to_string();
        Example {
            prompt: vec![1].into(),
            answers: (0..answers as u32).map(|answer| vec![answer].into()).collect(),
            labels: label.map(|label| (name(), label)).into_iter().collect::<BTreeMap<_, _>>().into(),
            scores: BTreeMap::from_iter((!scores.is_empty()).then(|| (name(), scores.to_vec()))),
            ..Example::default()
        }
    }

    #[test]
    fn one_dimension_in_three_shapes() {
        let data = Dataset {
            examples: vec![
                example(1, Some(Preference::Second), &[]),
                example(2, Some(Preference::Second), &[]),
                example(3, None, &[2.0, 5.0, 1.0]),
                example(2, Some(Preference::Tie), &[3.0, 3.0]),
                example(1, None, &[4.0]),
            ],
            ..Dataset::default()
        };
        let found: Vec<_> = data.answers("help").iter().map(|row| (row.example, row.answer, row.desirable)).collect();
        assert_eq!(found, [(0, 0, false), (1, 1, true), (1, 0, false), (2, 1, true), (2, 2, false)]);
        assert_eq!(data.lists("help"), [2]);
        assert_eq!(data.examples[2].score_difference("help", 1, 2), Some(4.0));
        assert_eq!(data.examples[1].score_difference("help", 1, 0), None);
        assert!(data.answers("absent").is_empty() && data.lists("absent").is_empty());
    }
}
