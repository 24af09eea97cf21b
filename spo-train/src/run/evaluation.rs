//! What is measured of finished policies: scores, gates, samples, distances.

use crate::TrainError;
use crate::config::ArmPlan;
use crate::evaluate::labelled_set::{Rewards, log_ratio_margins, reward_scores};
use crate::events::Event;
use crate::phase::gate::Gate;
use crate::policy::logps::PolicyLogps;
use crate::policy::sampling::{SampledResponses, show};
use crate::run::stages::Driver;
use spo_eval::{
    DimensionScore, Distribution, GateOutcome, GateSummary, Sample, Subset, paired_difference, score_dimension,
};
use std::collections::BTreeMap;

impl Driver<'_> {
    /// Scores a policy on the held-out pairs of every dimension. Returns its margins.
    pub(super) fn evaluate(
        &mut self,
        name: &str,
        arm: &ArmPlan,
        logps: &PolicyLogps,
        history: &[PolicyLogps],
    ) -> Result<BTreeMap<String, Vec<f64>>, TrainError> {
        let set = &self.prepared.held_out;
        let margins = |dimension: &String| {
            let rows = set.judged(dimension);
            let (own, start) = (set.logps(logps, &rows)?, set.logps(&history[0], &rows)?);
            Ok((dimension.clone(), log_ratio_margins(&own, &start)))
        };
        let margins: BTreeMap<_, _> = set.dimensions.iter().map(margins).collect::<Result<_, TrainError>>()?;
        let score = |dimension: &String| {
            score_dimension(name, dimension, &set.pair_scores(dimension, &margins[dimension]), &self.bootstrap)
        };
        let scores = set.dimensions.iter().map(score).collect::<Result<Vec<_>, _>>()?;
        self.stage(&format!("evaluate {name}"), &[], |run| run.score(name, arm, logps, history, &margins, &scores))?;
        self.matrix.extend(scores);
        Ok(margins)
    }

    fn score(
        &mut self,
        name: &str,
        arm: &ArmPlan,
        logps: &PolicyLogps,
        history: &[PolicyLogps],
        margins: &BTreeMap<String, Vec<f64>>,
        log_ratios: &[DimensionScore],
    ) -> Result<(), TrainError> {
        let set = &self.prepared.held_out;
        let rewards = Rewards::of(self.plan, arm)?;
        let (mut scores, mut distributions) = (vec![], vec![]);
        for (dimension, log_ratio) in set.dimensions.iter().zip(log_ratios) {
            scores.push(log_ratio.clone());
            scores.extend(reward_scores(
                set,
                name,
                dimension,
                logps,
                history,
                &rewards,
                &self.bootstrap,
                &self.numbers_device(),
            )?);
            distributions.push(Distribution::of(&format!("{name}: {dimension}"), &margins[dimension])?);
        }
        self.reporter.emit(Event::Evaluated {
            policy: name.into(),
            step: self.trained[name].step,
            scores,
            margins: distributions,
        })
    }

    /// Compares the main arm with each control on the same pairs.
    pub(super) fn compare(&mut self, scores: &[(String, BTreeMap<String, Vec<f64>>)]) -> Result<(), TrainError> {
        let set = &self.prepared.held_out;
        let Some(((main, of_main), controls)) = scores.split_first() else { return Ok(()) };
        for (control, of_control) in controls {
            for dimension in &set.dimensions {
                let a = set.pair_scores(dimension, &of_main[dimension]);
                let b = set.pair_scores(dimension, &of_control[dimension]);
                for subset in [Subset::All, Subset::Conflicting] {
                    if let Some(difference) =
                        paired_difference(dimension, (main, &a), (control, &b), subset, &self.bootstrap)?
                    {
                        self.reporter.emit(Event::Compared(difference))?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn show(&mut self, name: &str) -> Result<(), TrainError> {
        self.stage(&format!("show {name}"), &[], |run| {
            run.load(name)?;
            let (_, model) = run.current.as_ref().expect("it was just loaded");
            let (plan, stop) = (&run.plan.evaluation, &run.stop);
            let answers = show(model, &run.shown, plan, stop, &run.prepared.tokenizer, &run.reporter)?;
            for (shown, answer) in run.shown.iter().zip(answers) {
                let by_policy = vec![(name.to_owned(), answer)];
                run.reporter.emit(Event::Sampled(Sample { prompt: shown.text.clone(), by_policy }))?;
            }
            Ok(())
        })
    }

    /// Holds a round's policy against its gate.
    pub(super) fn check_gate(&mut self, gate: &Gate, name: &str) -> Result<(), TrainError> {
        let checks = gate.check(name, &self.matrix);
        let passed = checks.iter().all(|check| check.passed);
        let outcome = match (passed, self.trained[name].rolled_back) {
            (true, false) => GateOutcome::Passed,
            (true, true) => GateOutcome::RolledBack,
            (false, _) => GateOutcome::Stopped,
        };
        let summary = GateSummary { policy: name.into(), checks, outcome };
        let missed = summary.missed().join("; ");
        self.reporter.emit(Event::GateChecked(summary))?;
        if passed { Ok(()) } else { Err(TrainError::GateMissed { policy: name.into(), missed }) }
    }

    pub(super) fn draw(&mut self, name: &str, references: &[String]) -> Result<(), TrainError> {
        if self.plan.evaluation.kl_samples == 0 {
            return Ok(());
        }
        let drawn = self.stage(&format!("draw {name}"), &[], |run| {
            run.load(name)?;
            let (_, model) = run.current.as_ref().expect("it was just loaded");
            let (set, plan, budget) = (&run.prepared.held_out, &run.plan.evaluation, run.budget());
            let drawn = SampledResponses::sample(
                name,
                model,
                &set.dataset,
                plan,
                &run.stop,
                run.plan.seed,
                budget,
                &run.reporter,
            )?;
            let step = run.trained.get(name).map_or(0, |trained| trained.step);
            run.reporter.emit(drawn.event(step))?;
            Ok(drawn)
        })?;
        let mut references = references.to_vec();
        references.dedup();
        self.drawn.push((drawn, references));
        Ok(())
    }

    /// Scores every policy's drawn responses under the policies it is measured from, each of which
    /// is loaded once.
    pub(super) fn estimate_kl(&mut self) -> Result<(), TrainError> {
        let mut references: Vec<String> = vec![];
        for reference in self.drawn.iter().flat_map(|(_, references)| references) {
            if !references.contains(reference) {
                references.push(reference.clone());
            }
        }
        for reference in references {
            self.stage(&format!("KL to {reference}"), &[], |run| {
                run.load(&reference)?;
                let (_, model) = run.current.as_ref().expect("it was just loaded");
                for (drawn, wanted) in &run.drawn {
                    run.reporter.check_stop()?;
                    if wanted.contains(&reference) {
                        let estimate = drawn.kl(&reference, model, run.budget())?;
                        run.reporter.emit(Event::KlEstimated(estimate))?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
