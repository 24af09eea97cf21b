//! Limits that a dataset must keep: what `data check` fails on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Dataset, DatasetStats};

/// Limits; an absent one is not checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GateSpec {
    /// Share of read rows that may be dropped, 0 to 1.
    pub max_dropped: Option<f64>,
    /// Share of read rows that may be cut, 0 to 1.
    pub max_cut: Option<f64>,
    /// Share of examples that may repeat an earlier one, 0 to 1.
    pub max_duplicates: Option<f64>,
    /// Examples whose label contradicts that of the same answers elsewhere.
    pub max_contradictions: Option<f64>,
    /// Absolute correlation of preference and length, in the worst dimension, 0 to 1.
    pub max_length_correlation: Option<f64>,
    /// Pairs that every dimension must have.
    pub min_pairs: Option<f64>,
}

/// A limit that is not kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateMiss {
    /// The key of the limit.
    pub gate: &'static str,
    /// The limit.
    pub limit: f64,
    /// What was found.
    pub found: f64,
    /// The dimension, where the limit is about one.
    pub dimension: Option<String>,
}

impl GateSpec {
    /// The limits that a dataset misses; empty is a pass.
    pub fn check(&self, dataset: &Dataset, stats: &DatasetStats) -> Vec<GateMiss> {
        use crate::Reason::{AnswerCut, PromptCut};
        let rows = dataset.report.rows();
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let counts = dataset.report.counts();
        let count = |cut: bool| {
            let wanted = counts
                .iter()
                .filter(|(reason, _)| if cut { matches!(reason, AnswerCut | PromptCut) } else { reason.dropped() });
            wanted.map(|(_, count)| count).sum::<usize>()
        };
        let mut misses = Vec::new();
        let mut at_most = |gate, limit: Option<f64>, found: f64, dimension: Option<&String>| {
            if let Some(limit) = limit.filter(|limit| found > *limit) {
                misses.push(GateMiss { gate, limit, found, dimension: dimension.cloned() });
            }
        };
        at_most("max-dropped", self.max_dropped, share(count(false), rows), None);
        at_most("max-cut", self.max_cut, share(count(true), rows), None);
        let duplicates = share(stats.duplicates.len(), stats.examples);
        at_most("max-duplicates", self.max_duplicates, duplicates, None);
        at_most("max-contradictions", self.max_contradictions, stats.contradictions.len() as f64, None);
        for (name, dimension) in &stats.dimensions {
            let correlation = dimension.length_correlation.unwrap_or(0.0).abs();
            at_most("max-length-correlation", self.max_length_correlation, correlation, Some(name));
        }
        for (name, dimension) in &stats.dimensions {
            let found = dimension.pairs as f64;
            if let Some(limit) = self.min_pairs.filter(|limit| found < *limit) {
                misses.push(GateMiss { gate: "min-pairs", limit, found, dimension: Some(name.clone()) });
            }
        }
        misses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Example, FileReport, Incident, Preference, Reason};

    #[test]
    fn limits_are_checked_one_by_one() {
        let mut data = Dataset::default();
        data.report.files.push(FileReport {
            file: "a".into(),
            format: "jsonl".into(),
            schema: "trl".into(),
            why: String::new(),
            rows: 10,
            unused: Default::default(),
        });
        data.report.incidents.push(Incident { id: "a:1".into(), reason: Reason::EmptyAnswer });
        data.examples.push(Example {
            answers: vec![[1, 2].into(), [1].into()],
            labels: std::sync::Arc::new([("help".to_string(), Preference::First)].into()),
            ..Example::default()
        });
        let stats = data.stats();
        assert!(GateSpec::default().check(&data, &stats).is_empty());
        let spec = GateSpec {
            max_dropped: Some(0.05),
            max_cut: Some(0.0),
            max_length_correlation: Some(0.5),
            min_pairs: Some(2.0),
            ..GateSpec::default()
        };
        let missed: Vec<_> = spec.check(&data, &stats).into_iter().map(|miss| (miss.gate, miss.found)).collect();
        assert_eq!(missed, [("max-dropped", 0.1), ("max-length-correlation", 1.0), ("min-pairs", 1.0)]);
    }
}
