//! A conditional policy at weights over the whole simplex.

use crate::TrainError;
use crate::evaluate::labelled_set::log_ratio_margins;
use crate::events::Event;
use crate::policy;
use crate::policy::logps::PolicyLogps;
use crate::run::place::Place;
use crate::run::stages::Driver;
use spo_eval::{PairScore, front_weights, score_front};
use spo_model::lora::Weights;

impl Driver<'_> {
    /// Scores a conditional policy on the held-out rows at each of the weights. The log-probs of a point are stored under
    /// the weights that it has as a plain adapter, so that an interrupted stage goes on from them.
    pub(super) fn evaluate_front(&mut self, name: &str, place: &Place) -> Result<(), TrainError> {
        self.stage(name, &[], |run| {
            let (dimensions, mut points) = (run.plan.front().to_vec(), vec![]);
            for weights in front_weights(dimensions.len()) {
                let point = format!("{}@{}", place.policy, Weights::new(&dimensions, &weights));
                let logps = run.logps_at(&place.policy, &point, &weights)?;
                points.push((weights, run.front_scores(&dimensions, place, &logps)?));
            }
            let summary = score_front(&place.policy, &dimensions, &points, &run.bootstrap)?;
            run.reporter.emit(Event::Front(summary))
        })
    }

    /// The log-probs of the held-out answers at one point.
    fn logps_at(&mut self, policy: &str, point: &str, weights: &[f64]) -> Result<PolicyLogps, TrainError> {
        let (budget, set) = (self.prepared.scored_at_once(), &self.prepared.held_out.dataset);
        let model = self.resident.get(policy)?.clone().at_weights(weights);
        let hash = policy::hash(&model);
        self.cache.fill(point, &hash, 0, &model, &[set], budget, &mut self.reporter)
    }

    /// The margins of every dimension's held-out pairs.
    fn front_scores(
        &self,
        dimensions: &[String],
        place: &Place,
        logps: &PolicyLogps,
    ) -> Result<Vec<Vec<PairScore>>, TrainError> {
        let (set, start) = (&self.prepared.held_out, &self.logps[&place.path[0]]);
        let scores = |dimension: &String| {
            let rows = set.judged(dimension);
            let margins = log_ratio_margins(&set.logps(logps, &rows)?, &set.logps(start, &rows)?);
            Ok(set.pair_scores(dimension, &margins))
        };
        dimensions.iter().map(scores).collect()
    }
}
