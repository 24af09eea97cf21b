//! How fast this machine trains, scores and samples: a few steps of each phase from the starting model, which leave
//! nothing on disk.

use crate::config::{EvaluationPlan, TrainingPlan};
use crate::events::reporter::Reporter;
use crate::events::{Event, Sink, StepFigures};
use crate::persist::directory::{START, WARMUP};
use crate::phase::stopping::Stopping;
use crate::phase::{Phase, PhaseState, side_by_side};
use crate::policy::Policies;
use crate::policy::adapters::policy_options;
use crate::policy::logps::PolicyLogps;
use crate::policy::sampling::SampledResponses;
use crate::run::Prepared;
use crate::task::build::{ArmData, Frozen};
use crate::task::{SupervisedTask, Task};
use crate::{TrainError, step::memory};
use serde::Serialize;
use spo_core::logprob::HeadOptions;
use spo_data::{Example, Group, RowHash};
use spo_model::{CausalLm, device};
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Responses that are drawn, and tokens of one, at most.
const DRAWN: (usize, usize) = (4, 32);

/// Tokens per second.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Speed {
    /// Optimiser steps that were measured of each phase.
    pub steps: u64,
    /// Trained, by phase; one whose loss needs sampled answers is not measured.
    pub training: Vec<(String, f64)>,
    /// Scored without a tape.
    pub scoring: f64,
    /// Sampled.
    pub sampling: Option<f64>,
    /// Largest resident memory of the process, bytes; 0 where the system does not say.
    pub peak_bytes: u64,
}

impl Speed {
    /// Of a phase; of all phases together where it was not measured.
    pub fn training_of(&self, phase: &str) -> f64 {
        let own = self.training.iter().find(|(name, _)| name == phase).map(|(_, rate)| *rate);
        own.unwrap_or_else(|| self.training.iter().map(|(_, rate)| rate).sum::<f64>() / self.training.len() as f64)
    }
}

/// Steps that tell enough: more where one takes a few hundredths of a second.
pub fn usual_steps(prepared: &Prepared) -> u64 {
    if side_by_side(&prepared.device, &prepared.model) { 20 } else { 3 }
}

/// Measures `steps` optimiser steps of every phase, scoring and sampling; `sink` hears of the steps.
///
/// # Errors
/// The model cannot be loaded, or whatever stops training.
pub fn measure(prepared: &Prepared, steps: u64, sink: &mut dyn Sink) -> Result<Speed, TrainError> {
    let place = std::env::temp_dir();
    let options = policy_options(&prepared.plan, &prepared.model, &prepared.device)?;
    // Only the starting model is loaded: nothing is read from the directory, and nothing written.
    let mut policies = Policies::new(options, &place.join("spo-plan"), &prepared.held_out.dataset)?;
    let model = policies.start(START)?;
    let mut measured = Measured { prepared, model, policies, steps, sink, scored: (0, 0.0), training: vec![] };
    measured.warm_up()?;
    measured.rounds()?;
    let sampling = measured.sampling()?;
    let (tokens, seconds) = measured.scored;
    Ok(Speed {
        steps,
        training: measured.training,
        scoring: tokens as f64 / seconds,
        sampling,
        peak_bytes: memory::peak_resident_bytes(),
    })
}

struct Measured<'a> {
    prepared: &'a Prepared,
    model: CausalLm,
    policies: Policies,
    steps: u64,
    sink: &'a mut dyn Sink,
    /// Tokens and seconds.
    scored: (u64, f64),
    training: Vec<(String, f64)>,
}

impl Measured<'_> {
    fn warm_up(&mut self) -> Result<(), TrainError> {
        let prepared = self.prepared;
        let Some(warmup) = &prepared.plan.warmup else { return Ok(()) };
        let task = SupervisedTask::new(&prepared.train.dataset, &warmup.dimensions);
        let training = self.short(&warmup.training);
        self.train(&self.phase(WARMUP, 0, &training), &task)
    }

    fn rounds(&mut self) -> Result<(), TrainError> {
        let prepared = self.prepared;
        let train = &prepared.train.dataset;
        for (index, round, arm, name) in super::arms(prepared) {
            let data = ArmData::new(train, &round.dimension, arm)?;
            if data.sampled_tokens().is_some() {
                continue;
            }
            let training = self.short(&arm.training);
            let phase = self.phase(&name, index as u64 + 1, &training);
            let (visits, order) = (phase.visits(data.len()), phase.epoch(data.len()));
            let visited =
                (0..data.len()).filter(|&row| visits[row]).map(|row| train.examples[data.example(row)].clone());
            let mut rows: Vec<Example> = visited.collect();
            rows.extend(data.shortened(&visits));
            rows.extend(data.mismatched(&visits, &order, prepared.model.context));
            let logps = self.score(&rows, &training);
            // All policies before the round are the starting one here.
            let names: Vec<String> = (0..=index).map(|policy| policy.to_string()).collect();
            let history: Vec<PolicyLogps> = names.iter().map(|_| PolicyLogps::of(START, logps.clone())).collect();
            let reference = data.needs_reference_model().then(|| self.model.clone());
            let limit = prepared.model.context;
            let frozen = Frozen { names: &names, history: &history, samples: None, reference, order, limit };
            let task = match data.task(frozen, &visits, device::cpu()) {
                Ok((task, _)) => task,
                // Options may name earlier policies.
                Err(TrainError::Objective { .. }) => continue,
                Err(error) => return Err(error),
            };
            self.train(&self.phase(&name, index as u64 + 1, &training), task.as_ref())?;
        }
        Ok(())
    }

    /// A phase's settings for a few steps with nothing between them.
    fn short(&self, training: &TrainingPlan) -> TrainingPlan {
        let steps = self.steps.min(training.steps);
        TrainingPlan { steps, eval_every: 0, early_stopping: None, max_kl: 0.0, ..training.clone() }
    }

    fn phase<'p>(&self, name: &'p str, round: u64, training: &'p TrainingPlan) -> Phase<'p> {
        Phase { name, round, training, trainable: self.policies.trainable(), seed: self.prepared.plan.seed }
    }

    fn train(&mut self, phase: &Phase, task: &dyn Task) -> Result<(), TrainError> {
        let mut seen = Seen { batches: vec![], shown: self.sink };
        let stop = AtomicBool::new(false);
        let mut reporter = Reporter::new(std::env::temp_dir(), &mut seen, &stop);
        phase.run(PhaseState::new(self.model.clone()), task, None, Stopping::never(), None, &mut reporter)?;
        // The first step also warms caches and compiles kernels.
        let counted = &seen.batches[seen.batches.len().min(2) - 1..];
        let (tokens, seconds) = counted
            .iter()
            .fold((0, 0.0), |(tokens, seconds), figures| (tokens + figures.tokens, seconds + figures.seconds));
        self.training.push((phase.name.into(), tokens as f64 / seconds));
        Ok(())
    }

    fn score(&mut self, rows: &[Example], training: &TrainingPlan) -> HashMap<RowHash, f64> {
        let started = Instant::now();
        let groups: Vec<Group> = rows
            .iter()
            .map(|row| Group {
                prompt: &row.prompt,
                answers: row.answers.iter().map(|answer| answer.as_slice()).collect(),
            })
            .collect();
        let budget = 2 * training.micro_batch_tokens(&self.prepared.device);
        let scored = self.model.score(&groups, budget, &HeadOptions::default(), &mut |_| ());
        let mut logps = HashMap::new();
        for (row, answers) in rows.iter().zip(scored) {
            for (answer, tokens) in answers.iter().enumerate() {
                logps.insert(row.answer_hash(answer), tokens.iter().map(|logp| f64::from(*logp)).sum());
            }
        }
        self.scored.0 += super::tokens(rows);
        self.scored.1 += started.elapsed().as_secs_f64();
        logps
    }

    fn sampling(&self) -> Result<Option<f64>, TrainError> {
        let prepared = self.prepared;
        let plan = &prepared.plan.evaluation;
        if plan.kl_samples == 0 {
            return Ok(None);
        }
        let few = EvaluationPlan {
            kl_samples: plan.kl_samples.min(DRAWN.0),
            kl_max_new_tokens: plan.kl_max_new_tokens.min(DRAWN.1),
            ..plan.clone()
        };
        let mut stop = prepared.model.eos.clone();
        stop.extend(prepared.tokenizer.terminators());
        let (never, mut silent) = (AtomicBool::new(false), crate::events::sink::Memory::default());
        let reporter = Reporter::new(std::env::temp_dir(), &mut silent, &never);
        let started = Instant::now();
        let seed = prepared.plan.seed;
        let drawn = SampledResponses::sample(
            START,
            &self.model,
            &prepared.held_out.dataset,
            &few,
            &stop,
            seed,
            4096,
            &reporter,
        )?;
        Ok(Some(drawn.tokens() as f64 / started.elapsed().as_secs_f64()))
    }
}

/// Hands steps on and remembers them.
struct Seen<'a> {
    batches: Vec<StepFigures>,
    shown: &'a mut dyn Sink,
}

impl Sink for Seen<'_> {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        if let Event::Step(figures) = event {
            self.batches.push(figures.clone());
        }
        self.shown.event(seconds, event)
    }
}
