//! What is said of finished policies: scores, comparisons, gates.

use crate::TrainError;
use crate::evaluate::labelled_set::{LabelledSet, Rewards, log_ratio_margins, reward_scores};
use crate::events::Event;
use crate::phase::gate::Gate;
use crate::policy::logps::PolicyLogps;
use burn::tensor::Device;
use spo_eval::{
    Bootstrap, DimensionScore, Distribution, GateOutcome, GateSummary, PromptTally, ScoreKind, Subset,
    paired_difference, score_dimension,
};
use std::collections::BTreeMap;

/// Margins `Δ log(π/π_0)` of held-out rows, or `Δr` of a reward model, by dimension.
pub(super) type Margins = BTreeMap<String, Vec<f64>>;

/// A policy with its log-probs and those of the policies that it comes from, `π_0` first; or a reward model with its
/// rewards, which comes from none.
pub(super) struct Judged<'a> {
    pub name: &'a str,
    pub logps: &'a PolicyLogps,
    pub history: Vec<&'a PolicyLogps>,
}

impl Judged<'_> {
    /// Its margins on every dimension of a set.
    pub fn margins(&self, set: &LabelledSet) -> Result<Margins, TrainError> {
        let margins = |dimension: &String| {
            let rows = set.judged(dimension);
            let own = set.logps(self.logps, &rows)?;
            let margins = match self.history.first() {
                Some(start) => log_ratio_margins(&own, &set.logps(start, &rows)?),
                None => own.chosen.iter().zip(&own.rejected).map(|(chosen, rejected)| chosen - rejected).collect(),
            };
            Ok((dimension.clone(), margins))
        };
        set.dimensions.iter().map(margins).collect()
    }

    /// Its scores by every kind of reward, those of the margins with them.
    pub fn scores(
        &self,
        set: &LabelledSet,
        rewards: &Rewards,
        of_margins: &[DimensionScore],
        bootstrap: &Bootstrap,
        device: &Device,
    ) -> Result<Vec<DimensionScore>, TrainError> {
        if self.history.is_empty() {
            return Ok(of_margins.to_vec());
        }
        let mut scores = vec![];
        for (dimension, of_margin) in set.dimensions.iter().zip(of_margins) {
            scores.push(of_margin.clone());
            scores.extend(reward_scores(
                set,
                self.name,
                dimension,
                self.logps,
                &self.history,
                rewards,
                bootstrap,
                device,
            )?);
        }
        Ok(scores)
    }
}

/// The scores of a policy's margins, which are of this kind.
pub(super) fn margin_scores(
    set: &LabelledSet,
    policy: &str,
    kind: ScoreKind,
    margins: &Margins,
    bootstrap: &Bootstrap,
) -> Result<Vec<DimensionScore>, TrainError> {
    let score = |dimension: &String| {
        let pairs = set.pair_scores(dimension, &margins[dimension]);
        Ok(score_dimension(policy, dimension, &pairs, bootstrap)?.of_kind(kind))
    };
    set.dimensions.iter().map(score).collect()
}

/// The margins of each dimension as a distribution.
pub(super) fn distributions(
    set: &LabelledSet,
    policy: &str,
    margins: &Margins,
) -> Result<Vec<Distribution>, TrainError> {
    let of = |dimension: &String| Ok(Distribution::of(&format!("{policy}: {dimension}"), &margins[dimension])?);
    set.dimensions.iter().map(of).collect()
}

/// What a policy with these margins gets right of each prompt, along each dimension.
pub(super) fn by_prompt(set: &LabelledSet, policy: &str, margins: &Margins) -> Vec<PromptTally> {
    let of = |dimension: &String| PromptTally::all(policy, dimension, &set.pair_scores(dimension, &margins[dimension]));
    set.dimensions.iter().flat_map(of).collect()
}

/// Compares the first policy with each other one on the same rows.
pub(super) fn comparisons(
    set: &LabelledSet,
    policies: &[String],
    margins: &BTreeMap<String, Margins>,
    bootstrap: &Bootstrap,
) -> Result<Vec<Event>, TrainError> {
    let Some((main, controls)) = policies.split_first() else { return Ok(vec![]) };
    let mut events = vec![];
    for control in controls {
        for dimension in &set.dimensions {
            let [a, b] = [main, control].map(|policy| set.pair_scores(dimension, &margins[policy][dimension]));
            for subset in [Subset::All, Subset::Conflicting] {
                let found = paired_difference(dimension, (main, &a), (control, &b), subset, bootstrap)?;
                events.extend(found.map(Event::Compared));
            }
        }
    }
    Ok(events)
}

/// A policy held against its gate, whether or not it was rolled back on the way there.
pub(super) fn gate_summary(gate: &Gate, policy: &str, scores: &[DimensionScore], rolled_back: bool) -> GateSummary {
    let checks = gate.check(policy, scores);
    let outcome = match (checks.iter().all(|check| check.passed), rolled_back) {
        (true, false) => GateOutcome::Passed,
        (true, true) => GateOutcome::RolledBack,
        (false, _) if gate.goes_on() => GateOutcome::WentOn,
        (false, _) => GateOutcome::Stopped,
    };
    GateSummary { policy: policy.into(), checks, outcome }
}
