//! Training and held-out rows: no prompt is on both sides.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::example::hash_ids;
use crate::{Dataset, Example, LoadReport};

/// Splits so that no prompt is on both sides; returns (train, held out), each in the old order.
///
/// The side depends on the prompt as it stands in the data and on the seed only: rows appended later move no other row. Both reports
/// name all files; what happened to a row is told on its side, and on the training side if it was dropped.
pub fn split_by_prompt(dataset: Dataset, holdout_fraction: f64, seed: u64) -> (Dataset, Dataset) {
    split(dataset, |example| unit_interval(example, seed) < holdout_fraction)
}

/// Splits so that no prompt is on both sides: held out is one of several parts of the prompts, about equally large. The parts
/// depend on the prompts as they stand in the data alone, so that over all folds each prompt is held out once.
pub fn split_by_fold(dataset: Dataset, fold: Fold) -> (Dataset, Dataset) {
    split(dataset, |example| fold.contains(unit_interval(example, 0)))
}

/// A part of the prompts, `"2/5"`: the second of five.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fold {
    number: u32,
    of: u32,
}

impl Fold {
    /// What a fold looks like, for messages.
    pub const EXPECTED: &str = "a part of the prompts, such as \"2/5\": from \"1/5\" to \"5/5\", of 2 to 1000 parts";

    /// Reads a fold.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, of) = text.trim().split_once('/')?;
        let (number, of) = (number.trim().parse().ok()?, of.trim().parse().ok()?);
        ((2..=1000).contains(&of) && (1..=of).contains(&number)).then_some(Self { number, of })
    }

    /// Whether a number of `[0, 1)` falls into the part.
    fn contains(self, at: f64) -> bool {
        (at * f64::from(self.of)) as u32 + 1 == self.number
    }
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl TryFrom<String> for Fold {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("found {text:?}, expected {}", Self::EXPECTED))
    }
}

impl From<Fold> for String {
    fn from(fold: Fold) -> Self {
        fold.to_string()
    }
}

fn split(dataset: Dataset, held_out: impl Fn(&Example) -> bool) -> (Dataset, Dataset) {
    let Dataset { examples, report } = dataset;
    let (heldout, train): (Vec<Example>, Vec<Example>) = examples.into_iter().partition(held_out);
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
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dataset::tests::dataset;
    use crate::{Incident, Reason};
    use proptest::prelude::*;

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
    fn folds_are_about_equally_large_and_follow_no_seed() {
        let prompts: Vec<u32> = (0..5000).collect();
        for number in 1..=5 {
            let (_, heldout) = split_by_fold(dataset(&prompts), Fold::parse(&format!("{number}/5")).unwrap());
            assert!((heldout.examples.len() as i64 - 1000).abs() < 100, "{number}: {}", heldout.examples.len());
        }
        let first = split_by_fold(dataset(&prompts), Fold::parse("1/4").unwrap());
        assert_eq!(first, split_by_prompt(dataset(&prompts), 0.25, 0), "what `holdout = 0.25` holds out with seed 0");
    }

    #[test]
    fn folds_are_read_and_written() {
        for text in ["1/5", "5/5", "2/2", " 3 / 1000 "] {
            let fold = Fold::parse(text).unwrap();
            assert_eq!(Fold::parse(&fold.to_string()), Some(fold), "{text}");
        }
        for text in ["", "0/5", "6/5", "1/1", "1/1001", "1", "1/5/2", "-1/5", "a/b", "0.2"] {
            assert_eq!(Fold::parse(text), None, "{text}");
        }
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

        #[test]
        fn over_all_folds_each_prompt_is_held_out_once(
            prompts in prop::collection::vec(0u32..50, 0..60), of in 2u32..8, turn in 0usize..60,
        ) {
            let folds: Vec<Fold> = (1..=of).map(|number| Fold::parse(&format!("{number}/{of}")).unwrap()).collect();
            let held_out = |prompts: &[u32], fold: &Fold| {
                let (train, heldout) = split_by_fold(dataset(prompts), *fold);
                let of = |data: &Dataset| data.examples.iter().map(|example| example.prompt[0]).collect::<Vec<u32>>();
                (of(&train), of(&heldout))
            };
            let mut seen: Vec<u32> = vec![];
            for fold in &folds {
                let (train, heldout) = held_out(&prompts, fold);
                prop_assert!(heldout.iter().all(|prompt| !train.contains(prompt)));
                prop_assert_eq!(train.len() + heldout.len(), prompts.len());
                // In another order, and with other rows beside them, the prompts stay on their side.
                let mut turned = prompts.clone();
                turned.rotate_left(turn % prompts.len().max(1));
                turned.extend(50..70);
                let (_, mut again) = held_out(&turned, fold);
                again.retain(|prompt| *prompt < 50);
                let sorted = |mut list: Vec<u32>| { list.sort_unstable(); list };
                prop_assert_eq!(sorted(again), sorted(heldout.clone()));
                seen.extend(heldout);
            }
            let sorted = |mut list: Vec<u32>| { list.sort_unstable(); list };
            prop_assert_eq!(sorted(seen), sorted(prompts));
        }
    }
}
