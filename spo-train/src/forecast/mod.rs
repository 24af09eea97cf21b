//! What a run will do, before it does it: steps, tokens, passes over the rows of frozen policies, disk, memory; and, at a
//! speed that was measured, how long it takes.

mod measure;
mod memory;
mod processes;
mod warnings;

pub use crate::run::disk::Disk;
pub use crate::run::schedule::StageSummary;
pub use measure::{Speed, measure, usual_steps};
pub use memory::{MemoryForecast, PhaseMemory};
pub use processes::ProcessForecast;

use crate::TrainError;
use crate::evaluate::labelled_set::LabelledSet;
use crate::policy::sampling::distinct_prompts;
use crate::run::Prepared;
use crate::run::place::ReplayedData;
use crate::run::reference::Scoring;
use crate::run::schedule::{Stage, Training};
use serde::Serialize;
use spo_data::TokenShare;
use spo_model::device::on_cpu;

/// What a run will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Forecast {
    /// Everything that the run does, in order.
    pub stages: Vec<StageSummary>,
    /// Warm-up, rounds and controls, in order.
    pub phases: Vec<PhaseForecast>,
    /// Policies whose log-probs are computed once and cached.
    pub passes: Vec<PassForecast>,
    /// Pairs behind the bounds of `hold`, or prompts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<HoldForecast>,
    /// Entries of training data that are mixed by their share of the tokens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mix: Vec<TokenShare>,
    /// Tokens of sampled responses, at most.
    pub sampled_tokens: u64,
    /// Room in the run directory.
    pub disk: Disk,
    /// Memory, by what it is for.
    pub memory: MemoryForecast,
    /// What each process takes and gives, for every number of them that can share the run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<ProcessForecast>,
    /// Gbit/s between them, as the plan has it.
    #[serde(skip)]
    bandwidth: f64,
    /// What looks wrong, in plain words.
    pub warnings: Vec<String>,
    /// What was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// How long the run takes at that speed, without loading and saving.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// One phase of optimiser steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PhaseForecast {
    /// Its name.
    pub phase: String,
    /// Pairs, answers or lists.
    pub rows: usize,
    /// Optimiser steps.
    pub steps: u64,
    /// Passes over the rows.
    pub epochs: f64,
    /// Tokens trained on, shared prompts counted once.
    pub tokens: u64,
    /// Evaluations of the running policy on held-out rows.
    pub evaluations: u64,
    /// Tokens scored for them, at least.
    pub evaluation_tokens: u64,
    /// Pairs of earlier dimensions in each step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replayed: Vec<ReplayForecast>,
    /// Pairs without preference degrees, where the loss takes any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_degrees: Option<usize>,
    /// What the policy writes in a step for its loss to be scored, where the loss is of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<WrittenForecast>,
}

/// Answers of a step, at both sides of each direction.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct WrittenForecast {
    /// Answers.
    pub answers_per_step: usize,
    /// Their tokens, at most.
    pub tokens_per_step: u64,
    /// Tokens of all steps, at most.
    pub tokens: u64,
}

/// The pairs of an earlier dimension in each step of a phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ReplayForecast {
    /// The dimension.
    pub dimension: String,
    /// Its pairs in a step.
    pub pairs_per_step: usize,
    /// All of them.
    pub rows: usize,
}

/// The pairs behind one bound, or the prompts whose answers are.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HoldForecast {
    /// The phase that holds.
    pub phase: String,
    /// The held dimension.
    pub dimension: String,
    /// Pairs that drive λ, or prompts; no phase trains on them.
    pub driving: usize,
    /// Held-out pairs that judge what was reached, or prompts.
    pub judging: usize,
    /// Updates of λ.
    pub updates: u64,
    /// Where the bound is on samples: answers to each prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
}

/// One frozen policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PassForecast {
    /// Its name.
    pub policy: String,
    /// Answers that it scores, those that losses make of the data's own included.
    pub answers: usize,
    /// Their tokens with their prompts; of sampled answers at most.
    pub tokens: u64,
}

impl Forecast {
    /// Of a prepared run.
    ///
    /// # Errors
    /// Options that an objective or the model refuses.
    pub fn of(prepared: &Prepared) -> Result<Self, TrainError> {
        let list = prepared.stages();
        let stages: Vec<StageSummary> = list.iter().map(Stage::summary).collect();
        let phases: Vec<PhaseForecast> = list.iter().filter_map(Stage::training).map(PhaseForecast::of).collect();
        let passes: Vec<PassForecast> = list.iter().filter_map(PassForecast::of).collect();
        let disk = Disk::of(prepared, phases.len(), passes.iter().map(|pass| pass.answers).sum())?;
        let memory = MemoryForecast::of(prepared, &list)?;
        let warnings = warnings::of(prepared, &phases, &disk, &memory);
        let holds =
            list.iter().filter_map(Stage::training).flat_map(|stage| HoldForecast::of(prepared, stage)).collect();
        let sampled_tokens = stages.iter().map(|stage| stage.sampled_tokens).sum();
        let parallel = &prepared.plan.parallel;
        let processes = ProcessForecast::all(parallel, &memory, on_cpu(&prepared.device));
        let mix = prepared.train.dataset.report.mix.clone();
        Ok(Self {
            stages,
            phases,
            passes,
            holds,
            mix,
            sampled_tokens,
            disk,
            memory,
            processes,
            bandwidth: parallel.bandwidth,
            warnings,
            speed: None,
            seconds: None,
        })
    }

    /// With a speed, and the time that follows from it.
    #[must_use]
    pub fn with_speed(self, speed: Speed) -> Self {
        // What a policy writes for its loss is among what is sampled.
        let by_gradients = self.phases.iter().filter(|phase| phase.written.is_none());
        let trained: f64 = by_gradients.map(|phase| phase.tokens as f64 / speed.training_of(&phase.phase)).sum();
        let scored = self.stages.iter().map(|stage| stage.scored_tokens).sum::<u64>();
        let sampled = speed.sampling.map_or(0.0, |rate| self.sampled_tokens as f64 / rate);
        let seconds = Some(trained + scored as f64 / speed.scoring + sampled);
        let slow = self.slow_exchange(&speed, self.bandwidth);
        let warnings = self.warnings.iter().cloned().chain(slow).collect();
        Self { seconds, speed: Some(speed), warnings, ..self }
    }
}

impl PhaseForecast {
    fn of(training: &Training) -> Self {
        let (rows, settings) = (training.data.train.len(), training.place.training);
        Self {
            phase: training.place.policy.clone(),
            rows,
            steps: settings.steps,
            epochs: settings.steps as f64 * settings.own_pairs_per_step().min(rows) as f64 / rows as f64,
            tokens: training.tokens,
            evaluations: training.evaluations,
            evaluation_tokens: training.evaluation_tokens,
            replayed: ReplayForecast::all(training),
            without_degrees: training.data.train.without_degrees(),
            written: training.data.train.is_written().then(|| WrittenForecast {
                answers_per_step: training.written.per_step.count,
                tokens_per_step: training.written.per_step.tokens(),
                tokens: training.written.steps.tokens(),
            }),
        }
    }
}

impl ReplayForecast {
    fn all(training: &Training) -> Vec<Self> {
        let of = |((dimension, pairs_per_step), rows): ((&str, usize), &ReplayedData)| Self {
            dimension: dimension.into(),
            pairs_per_step,
            rows: rows.data.len(),
        };
        training.place.training.replayed_pairs().zip(&training.data.replayed).map(of).collect()
    }
}

impl HoldForecast {
    fn of(prepared: &Prepared, training: &Training) -> Vec<Self> {
        let Some(hold) = training.place.arm.and_then(|arm| arm.plan.hold.as_ref()) else { return vec![] };
        let behind = |set: &LabelledSet, dimension: &str| match &hold.sampled {
            Some(sampled) => distinct_prompts(&set.dataset, sampled.sample_prompts).len(),
            None => set.judged(dimension).len(),
        };
        let of = |dimension: &String| Self {
            phase: training.place.policy.clone(),
            dimension: dimension.clone(),
            driving: behind(&prepared.driving, dimension),
            judging: behind(&prepared.held_out, dimension),
            updates: hold.updates(training.place.training.steps),
            samples: hold.sampled.as_ref().map(|sampled| sampled.samples),
        };
        hold.dimensions.keys().map(of).collect()
    }
}

impl PassForecast {
    fn of(stage: &Stage) -> Option<Self> {
        let Stage::Score(Scoring { policy, answers, tokens, .. }) = stage else { return None };
        Some(Self { policy: policy.clone(), answers: *answers, tokens: *tokens })
    }
}
