//! What a round's policy must reach.

use crate::config::spec::OnMiss;
use crate::config::{Condition, GatePlan};
use crate::events::HeldOut;
use spo_eval::{DimensionScore, GateCheck, Subset, dimensions, find_score};
use std::collections::BTreeMap;

/// A round's gate and what the policies before it reached.
#[derive(Debug)]
pub struct Gate<'a> {
    plan: &'a GatePlan,
    /// Best accuracy on each dimension among the policies that the round's policy comes from.
    before: BTreeMap<String, f64>,
}

impl<'a> Gate<'a> {
    /// A gate after the policies of `path`, whose scores are among `scores`.
    pub fn new(plan: &'a GatePlan, scores: &[DimensionScore], path: &[String]) -> Self {
        let mut before = BTreeMap::new();
        for dimension in dimensions(scores) {
            let accuracy = |policy: &String| Some(find_score(scores, policy, dimension)?.tally(Subset::All)?.accuracy);
            if let Some(best) = path.iter().filter_map(accuracy).reduce(f64::max) {
                before.insert(dimension.to_owned(), best);
            }
        }
        Self { plan, before }
    }

    /// Whether a miss takes the round back to its best policy.
    pub fn rolls_back(&self) -> bool {
        self.plan.on_miss == OnMiss::RollBack
    }

    /// Whether a miss lets the next round begin.
    pub fn goes_on(&self) -> bool {
        self.plan.on_miss == OnMiss::GoOn
    }

    /// Evaluations in a row at which the running policy passes that end the round, if any do.
    pub fn admits_after(&self) -> Option<u64> {
        self.plan.admit_after
    }

    /// Every condition, held against a policy's accuracy and mean margin on a dimension.
    fn conditions(&self, measured: impl Fn(&str) -> Option<(f64, f64)>) -> Vec<(GateCheck, f64)> {
        let mut checks = vec![];
        let mut check = |what: String, condition: &Condition, found: f64| {
            let (wanted, passed) = (condition.to_string(), condition.holds(found));
            checks.push((GateCheck { what, found, wanted, passed }, condition.gap(found)));
        };
        for (dimension, conditions) in &self.plan.dimensions {
            let Some((accuracy, margin)) = measured(dimension) else { continue };
            if let Some(condition) = &conditions.accuracy {
                check(format!("{dimension} accuracy"), condition, accuracy);
            }
            if let Some(condition) = &conditions.margin {
                check(format!("{dimension} margin"), condition, margin);
            }
        }
        let most = self.plan.max_forgetting.and_then(|most| Condition::parse(&format!("<= {most}")));
        for (most, (dimension, best)) in
            most.iter().flat_map(|most| self.before.iter().map(move |before| (most, before)))
        {
            if let Some((accuracy, _)) = measured(dimension) {
                check(format!("forgetting of {dimension}"), most, (best - accuracy).max(0.0));
            }
        }
        checks
    }

    /// The conditions on a finished policy.
    pub fn check(&self, policy: &str, scores: &[DimensionScore]) -> Vec<GateCheck> {
        let measured = |dimension: &str| {
            let tally = find_score(scores, policy, dimension)?.tally(Subset::All)?;
            Some((tally.accuracy, tally.mean_margin))
        };
        self.conditions(measured).into_iter().map(|(check, _)| check).collect()
    }

    /// By how much a running policy misses the gate, added up; 0 if it passes.
    pub fn gap(&self, found: &HeldOut) -> f64 {
        let measured = |dimension: &str| {
            let of = found.dimensions.iter().find(|of| of.dimension == dimension)?;
            Some((of.accuracy, of.margin))
        };
        self.conditions(measured).into_iter().map(|(_, gap)| gap).sum()
    }
}
