//! All examples of a run, and its split by prompt.

use std::collections::BTreeMap;

use crate::example::hash_ids;

use crate::{Example, LoadReport, Preference, Units};

/// Examples with the report of how they were loaded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dataset {
    /// The examples, in file order.
    pub examples: Vec<Example>,
    /// What happened to the rows.
    pub report: LoadReport,
}

/// How often a dimension is labelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct DimensionCount {
    /// Examples with a chosen and a rejected answer.
    pub pairs: usize,
    /// Examples labelled as a tie.
    pub ties: usize,
}

/// A pair along one dimension, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairRef {
    /// Index into [`Dataset::examples`].
    pub example: usize,
    /// Index of the chosen answer.
    pub chosen: usize,
    /// Index of the rejected answer.
    pub rejected: usize,
}

impl Dataset {
    /// Pairs and ties per dimension.
    pub fn dimensions(&self) -> BTreeMap<String, DimensionCount> {
        let mut counts: BTreeMap<String, DimensionCount> = BTreeMap::new();
        for example in self.examples.iter().filter(|example| example.answers.len() > 1) {
            for dimension in example.dimensions() {
                let count = counts.entry(dimension.to_string()).or_default();
                match example.pair(dimension) {
                    Some(_) => count.pairs += 1,
                    None => count.ties += 1,
                }
            }
        }
        counts
    }

    /// The pairs of a dimension in example order; ties are left out.
    pub fn pairs(&self, dimension: &str) -> Vec<PairRef> {
        let pair = |(index, example): (usize, &Example)| {
            let (chosen, rejected) = example.pair(dimension)?;
            Some(PairRef { example: index, chosen, rejected })
        };
        self.examples.iter().enumerate().filter_map(pair).collect()
    }

    /// The two answers of each example that is labelled as a tie along a dimension, in example order.
    pub fn ties(&self, dimension: &str) -> Vec<PairRef> {
        let tied = |(_, example): &(usize, &Example)| {
            example.answers.len() > 1 && example.labels.get(dimension) == Some(&Preference::Tie)
        };
        let pair = |(example, _)| PairRef { example, chosen: 0, rejected: 1 };
        self.examples.iter().enumerate().filter(tied).map(pair).collect()
    }

    /// Which rows belong together, of rows that are of these examples: those that were made of the same row, where they
    /// follow each other.
    pub fn units(&self, examples: impl IntoIterator<Item = usize>) -> Units {
        Units::of(examples.into_iter().map(|example| self.examples[example].source.map(|source| source.row)))
    }

    /// Hash of ids, tokens, labels, scores and tags, 32 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("spo-data dataset v1");
        let text = |hasher: &mut blake3::Hasher, text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        let count = |hasher: &mut blake3::Hasher, count: usize| {
            hasher.update(&(count as u64).to_le_bytes());
        };
        for example in &self.examples {
            text(&mut hasher, &example.id);
            hash_ids(&mut hasher, &example.prompt);
            count(&mut hasher, example.answers.len());
            for answer in &example.answers {
                hash_ids(&mut hasher, answer);
            }
            count(&mut hasher, example.labels.len());
            for (dimension, label) in example.labels.iter() {
                text(&mut hasher, dimension);
                hasher.update(&label.sign().to_le_bytes());
            }
            count(&mut hasher, example.scores.len());
            for (dimension, scores) in &example.scores {
                text(&mut hasher, dimension);
                count(&mut hasher, scores.len());
                for score in scores {
                    hasher.update(&score.to_le_bytes());
                }
            }
            // Nothing is hashed where nothing is said, so that older fingerprints stay.
            for safe in &example.safe {
                hasher.update(&[1 + u8::from(*safe)]);
            }
            if let Some(source) = example.source {
                hasher.update(&source.prompt.to_le_bytes());
                hasher.update(&source.row.to_le_bytes());
            }
            count(&mut hasher, example.tags.len());
            for (name, value) in example.tags.iter() {
                text(&mut hasher, name);
                text(&mut hasher, value);
            }
        }
        hasher.finalize().to_hex()[..32].to_string()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Arc;

    /// A row for each prompt: the first answer is preferred, then the second, then neither.
    pub(crate) fn dataset(prompts: &[u32]) -> Dataset {
        let example = |(index, prompt): (usize, &u32)| Example {
            id: format!("row{index}"),
            prompt: [*prompt].into(),
            answers: vec![[1].into(), [2].into()],
            labels: Arc::new(
                [("help".to_string(), [Preference::First, Preference::Second, Preference::Tie][index % 3])].into(),
            ),
            ..Example::default()
        };
        Dataset { examples: prompts.iter().enumerate().map(example).collect(), report: LoadReport::default() }
    }

    #[test]
    fn pairs_leave_ties_out() {
        let data = dataset(&[1, 2, 3, 4]);
        let count = DimensionCount { pairs: 3, ties: 1 };
        assert_eq!(data.dimensions(), BTreeMap::from([("help".to_string(), count)]));
        let pairs = data.pairs("help");
        assert_eq!(pairs[1], PairRef { example: 1, chosen: 1, rejected: 0 });
        assert_eq!(pairs.len(), 3);
        assert!(data.pairs("absent").is_empty());
        assert_eq!(data.ties("help"), [PairRef { example: 2, chosen: 0, rejected: 1 }]);
        assert!(data.ties("absent").is_empty());
    }

    #[test]
    fn fingerprints_see_labels() {
        let data = dataset(&[1, 2]);
        let mut other = data.clone();
        assert_eq!(data.fingerprint(), other.fingerprint());
        Arc::make_mut(&mut other.examples[0].labels).insert("help".into(), Preference::Tie);
        assert_ne!(data.fingerprint(), other.fingerprint());
    }
}
