//! What a run will do, before it does it: steps, tokens, passes over the rows of frozen policies, disk, memory; and, at a
//! speed that was measured, how long it takes.

mod measure;
mod memory;
mod warnings;

pub use crate::run::disk::Disk;
pub use measure::{Speed, measure, usual_steps};
pub use memory::{MemoryForecast, PhaseMemory};

use crate::TrainError;
use crate::config::{ArmPlan, RoundPlan, TrainingPlan};
use crate::persist::directory::{START, WARMUP, policy_name};
use crate::phase::Phase;
use crate::run::Prepared;
use crate::step::gradients::Trainable;
use crate::task::build::ArmData;
use crate::task::{SupervisedTask, Task};
use serde::Serialize;
use spo_data::{Dataset, Example};

/// What a run will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Forecast {
    /// Warm-up, rounds and controls, in order.
    pub phases: Vec<PhaseForecast>,
    /// Policies whose log-probs are computed once and cached.
    pub passes: Vec<PassForecast>,
    /// Tokens of sampled responses, at most.
    pub sampled_tokens: u64,
    /// Room in the run directory.
    pub disk: Disk,
    /// Memory, by what it is for.
    pub memory: MemoryForecast,
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
    /// Evaluations at the running policy on held-out rows.
    pub evaluations: u64,
    /// Tokens scored for them, at least.
    pub evaluation_tokens: u64,
}

/// One frozen policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PassForecast {
    /// Its name.
    pub policy: String,
    /// Answers that it scores, those that losses make of the data's own not counted.
    pub answers: usize,
    /// Their tokens with their prompts.
    pub tokens: u64,
}

impl Forecast {
    /// Of a prepared run.
    ///
    /// # Errors
    /// Options that an objective or the model refuses.
    pub fn of(prepared: &Prepared) -> Result<Self, TrainError> {
        let (phases, passes) = (phases(prepared)?, passes(prepared)?);
        let disk = Disk::of(prepared, phases.len(), passes.iter().map(|pass| pass.answers).sum())?;
        let memory = MemoryForecast::of(prepared)?;
        let warnings = warnings::of(prepared, &phases, &disk, &memory);
        let sampled_tokens = sampled_tokens(prepared, &phases);
        Ok(Self { phases, passes, sampled_tokens, disk, memory, warnings, speed: None, seconds: None })
    }

    /// With a speed, and the time that follows from it.
    #[must_use]
    pub fn with_speed(self, speed: Speed) -> Self {
        let trained: f64 = self.phases.iter().map(|phase| phase.tokens as f64 / speed.training_of(&phase.phase)).sum();
        let scored = self.phases.iter().map(|phase| phase.evaluation_tokens).sum::<u64>()
            + self.passes.iter().map(|pass| pass.tokens).sum::<u64>();
        let sampled = speed.sampling.map_or(0.0, |rate| self.sampled_tokens as f64 / rate);
        let seconds = Some(trained + scored as f64 / speed.scoring + sampled);
        Self { seconds, speed: Some(speed), ..self }
    }
}

/// Every arm of a plan with its round and its policy's name.
fn arms(prepared: &Prepared) -> Vec<(usize, &RoundPlan, &ArmPlan, String)> {
    let mut all = vec![];
    for (index, round) in prepared.plan.rounds.iter().enumerate() {
        all.extend(round.arms.iter().map(|arm| (index, round, arm, policy_name(round, arm))));
    }
    all
}

/// How a phase visits its rows: what is trained makes no difference to that.
fn visiting<'a>(prepared: &Prepared, round: u64, training: &'a TrainingPlan) -> Phase<'a> {
    Phase { name: "", round, training, trainable: Trainable::All, seed: prepared.plan.seed }
}

fn phases(prepared: &Prepared) -> Result<Vec<PhaseForecast>, TrainError> {
    let (plan, train) = (&prepared.plan, &prepared.train.dataset);
    let held_out = tokens(&prepared.held_out.dataset.examples);
    let phase = |name: &str, round: u64, training: &TrainingPlan, lengths: &[usize]| {
        let evaluations = if training.eval_every > 0 { training.steps.div_ceil(training.eval_every) } else { 0 };
        PhaseForecast {
            phase: name.into(),
            rows: lengths.len(),
            steps: training.steps,
            epochs: training.steps as f64 * training.pairs_per_step.min(lengths.len()) as f64 / lengths.len() as f64,
            tokens: visiting(prepared, round, training).tokens(lengths),
            evaluations,
            evaluation_tokens: evaluations * held_out,
        }
    };
    let mut all = vec![];
    if let Some(warmup) = &plan.warmup {
        let task = SupervisedTask::new(train, &warmup.dimensions);
        let lengths: Vec<usize> = (0..task.len()).map(|row| task.group(row).tokens()).collect();
        all.push(phase(WARMUP, 0, &warmup.training, &lengths));
    }
    for (index, round, arm, name) in arms(prepared) {
        let data = ArmData::new(train, &round.dimension, arm)?;
        let lengths: Vec<usize> = (0..data.len()).map(|row| data.tokens(row)).collect();
        all.push(phase(&name, index as u64 + 1, &arm.training, &lengths));
    }
    Ok(all)
}

fn passes(prepared: &Prepared) -> Result<Vec<PassForecast>, TrainError> {
    let plan = &prepared.plan;
    let start = if plan.warmup.is_some() { WARMUP } else { START };
    let mut all = vec![pass(prepared, start, 0)?];
    for (index, round, arm, name) in arms(prepared) {
        let later = if arm.name == round.main().name { index + 1 } else { plan.rounds.len() };
        all.push(pass(prepared, &name, later)?);
    }
    Ok(all)
}

/// The held-out rows and those that rounds from `from` on visit.
fn pass(prepared: &Prepared, policy: &str, from: usize) -> Result<PassForecast, TrainError> {
    let train = &prepared.train.dataset;
    let mut wanted = vec![false; train.examples.len()];
    for (index, round, arm, _) in arms(prepared).into_iter().filter(|(index, ..)| *index >= from) {
        let data = ArmData::new(train, &round.dimension, arm)?;
        let visits = visiting(prepared, index as u64 + 1, &arm.training).visits(data.len());
        (0..data.len()).filter(|row| visits[*row]).for_each(|row| wanted[data.example(row)] = true);
    }
    let later = train.examples.iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(example, _)| example);
    let rows: Vec<&Example> = later.chain(&prepared.held_out.dataset.examples).collect();
    Ok(PassForecast {
        policy: policy.into(),
        answers: rows.iter().map(|row| row.answers.len()).sum(),
        tokens: tokens(rows),
    })
}

fn tokens<'e>(examples: impl IntoIterator<Item = &'e Example>) -> u64 {
    examples.into_iter().map(|example| example.tokens() as u64).sum()
}

fn sampled_tokens(prepared: &Prepared, phases: &[PhaseForecast]) -> u64 {
    let plan = &prepared.plan;
    let evaluation = &plan.evaluation;
    let drawn = evaluation.kl_samples.min(distinct_prompts(&prepared.held_out.dataset));
    let shown = evaluation.samples + evaluation.sample_prompts.len();
    let policies = 1 + plan.rounds.iter().map(|round| round.arms.len()).sum::<usize>();
    let budgets = plan.warmup.iter().map(|warmup| warmup.training.max_kl);
    let budgets = budgets.chain(plan.rounds.iter().flat_map(|round| &round.arms).map(|arm| arm.training.max_kl));
    let evaluations: u64 =
        phases.iter().zip(budgets).filter(|(_, kl)| *kl > 0.0).map(|(phase, _)| phase.evaluations).sum();
    let responses = policies * (drawn + shown) + evaluations as usize * drawn;
    (responses * evaluation.kl_max_new_tokens) as u64
}

fn distinct_prompts(dataset: &Dataset) -> usize {
    dataset.examples.iter().map(|example| example.prompt.as_slice()).collect::<std::collections::HashSet<_>>().len()
}
