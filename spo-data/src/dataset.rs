//! All examples of a run, and its split by prompt.

use std::collections::{BTreeMap, BTreeSet};

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

/// Splits so that no prompt is on both sides; returns (train, held out), each in the old order.
///
/// The side depends on the prompt as it stands in the data and on the seed only: rows appended later move no other row. Both reports
/// name all files; what happened to a row is told on its side, and on the training side if it was dropped.
pub fn split_by_prompt(dataset: Dataset, holdout_fraction: f64, seed: u64) -> (Dataset, Dataset) {
    let Dataset { examples, report } = dataset;
    let (heldout, train): (Vec<Example>, Vec<Example>) =
        examples.into_iter().partition(|example| unit_interval(example, seed) < holdout_fraction);
    let ids: BTreeSet<&str> = heldout.iter().map(|example| example.id.as_str()).collect();
    let mut report = report;
    let (of_heldout, incidents): (Vec<_>, Vec<_>) =
        std::mem::take(&mut report.incidents).into_iter().partition(|incident| ids.contains(incident.id.as_str()));
    let heldout_report = LoadReport { incidents: of_heldout, ..report.clone() };
    let train_report = LoadReport { incidents, ..report };
    (Dataset { examples: train, report: train_report }, Dataset { examples: heldout, report: heldout_report })
}

fn unit_interval(example: &Example, seed: u64) -> f64 {
    let mut hasher = blake3::Hasher::new_derive_key("spo-data split v1");
    hasher.update(&seed.to_le_bytes());
    match example.source {
        // Rows that were made of one row stay together.
        Some(source) => drop(hasher.update(&source.prompt.to_le_bytes())),
        None => hash_ids(&mut hasher, &example.prompt),
    }
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    (u64::from_le_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Incident, Reason};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn dataset(prompts: &[u32]) -> Dataset {
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
    fn a_split_tells_what_happened_to_a_row_once() {
        let mut data = dataset(&(0..50).collect::<Vec<u32>>());
        let incident = |id: String, reason| Incident { id, reason };
        data.report.incidents = (0..50).map(|row| incident(format!("row{row}"), Reason::PromptCut)).collect();
        data.report.incidents.push(incident("row50".into(), Reason::EmptyAnswer));
        let (train, heldout) = split_by_prompt(data, 0.3, 0);
        let told =
            |data: &Dataset| data.report.incidents.iter().map(|incident| incident.id.clone()).collect::<Vec<_>>();
        let rows = |data: &Dataset| data.examples.iter().map(|example| example.id.clone()).collect::<Vec<_>>();
        assert_eq!(told(&heldout), rows(&heldout));
        assert_eq!(told(&train), [rows(&train), vec!["row50".to_string()]].concat());
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

    proptest! {
        #[test]
        fn splits_are_stable_and_share_no_prompt(
            prompts in prop::collection::vec(0u32..50, 0..60), more in prop::collection::vec(0u32..50, 0..20), seed: u64,
        ) {
            let (train, heldout) = split_by_prompt(dataset(&prompts), 0.3, seed);
            prop_assert_eq!(train.examples.len() + heldout.examples.len(), prompts.len());
            for example in &heldout.examples {
                prop_assert!(train.examples.iter().all(|other| other.prompt != example.prompt));
            }
            let longer: Vec<u32> = prompts.iter().chain(&more).copied().collect();
            let (_, again) = split_by_prompt(dataset(&longer), 0.3, seed);
            let ids = |data: &Dataset| data.examples.iter().map(|example| example.id.clone()).collect::<Vec<_>>();
            prop_assert!(ids(&again).starts_with(&ids(&heldout)));
        }
    }
}
