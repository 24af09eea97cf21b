//! How fast this machine trains, scores and samples: a few steps of each phase from the starting model, which leave
//! nothing on disk.

use crate::config::{EvaluationPlan, TrainingPlan};
use crate::events::reporter::Reporter;
use crate::events::sink::Memory;
use crate::events::{Event, Sink, StepFigures};
use crate::persist::directory::START;
use crate::phase::stopping::Stopping;
use crate::phase::{Phase, PhaseState, side_by_side};
use crate::policy::Policies;
use crate::policy::adapters::policy_options;
use crate::policy::logps::{PolicyLogps, score_answers};
use crate::policy::sampling::{BATCH, SampledResponses};
use crate::run::Prepared;
use crate::run::schedule::{Stage, Training};
use crate::task::Task;
use crate::task::build::{Frozen, Lambdas};
use crate::task::data::TaskData;
use crate::{TrainError, step::memory};
use serde::Serialize;
use spo_data::{Example, Group, RowHash};
use spo_model::{CausalLm, device};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Responses that are drawn, and tokens of one, at most. A loss of sampled answers draws as many together as a batch has.
const DRAWN: (usize, usize) = (4, 32);

/// Tokens per second.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Speed {
    /// Optimiser steps that were measured of each phase.
    pub steps: u64,
    /// Trained, by phase; one whose loss needs sampled answers, or is of them, is not measured.
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
    let mut policies = Policies::new(options, &place.join("spo-plan"), prepared.probes())?;
    let model = policies.start(START)?;
    let (scored, training, sampling) = ((0, 0.0), vec![], None);
    let stages = prepared.stages();
    let written = |stage: &Stage| stage.training().is_some_and(|training| training.data.train.is_written());
    let drawn = if stages.iter().any(written) { BATCH } else { DRAWN.0 };
    let mut measured = Measured { prepared, model, policies, steps, sink, scored, training, sampling, drawn };
    for stage in stages {
        match &stage {
            Stage::Train(training) => measured.phase(training)?,
            Stage::Respond { .. } if measured.sampling.is_none() => measured.responses()?,
            _ => {}
        }
    }
    let Measured { scored: (tokens, seconds), training, sampling, .. } = measured;
    // Where nothing was scored nothing is.
    let scoring = if tokens == 0 { f64::INFINITY } else { tokens as f64 / seconds };
    let peak_bytes = memory::peak_resident_bytes();
    Ok(Speed { steps, training, scoring, sampling, peak_bytes })
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
    sampling: Option<f64>,
    /// Responses that tell it.
    drawn: usize,
}

impl Measured<'_> {
    /// A few steps of a phase, after what its loss needs of frozen policies: here they all are the starting one.
    fn phase(&mut self, training: &Training) -> Result<(), TrainError> {
        let (place, data) = (&training.place, &training.data.train);
        if data.is_written() && self.sampling.is_none() {
            return self.responses();
        }
        if data.sampled_tokens().is_some() || data.is_written() {
            return Ok(());
        }
        let few = self.short(place.training);
        let (name, round, seed) = (place.policy.as_str(), place.round(), self.prepared.plan.seed);
        let (trainable, shards) = (data.trainable(self.policies.trainable()), self.prepared.plan.parallel.shards);
        let phase = Phase { name, round, training: &few, trainable, seed, hold: None, shards, probes: None };
        let data = data.clone().visiting(phase.visits(data.units()), phase.epoch(data.units()));
        let logps = PolicyLogps::of(START, if place.arm.is_some() { self.score(&data) } else { HashMap::new() });
        let history: Vec<&PolicyLogps> = place.path.iter().map(|_| &logps).collect();
        let reference = data.needs_reference_model().then(|| self.model.clone());
        let frozen = Frozen {
            names: &place.path,
            history: &history,
            samples: None,
            reference,
            contexts: None,
            lambdas: Lambdas::default(),
            judged: None,
        };
        let task = data.task(frozen, device::cpu())?;
        self.train(&phase, task.as_ref(), data.with_head(self.model.clone()))
    }

    /// A phase's settings for a few steps with nothing between them.
    fn short(&self, training: &TrainingPlan) -> TrainingPlan {
        let steps = self.steps.min(training.steps);
        // The rows of other dimensions take as long as its own.
        let replay = BTreeMap::new();
        TrainingPlan { steps, eval_every: 0, early_stopping: None, max_kl: 0.0, replay, ..training.clone() }
    }

    fn train(&mut self, phase: &Phase, task: &dyn Task, model: CausalLm) -> Result<(), TrainError> {
        let mut seen = Seen { batches: vec![], shown: self.sink };
        let stop = AtomicBool::new(false);
        let mut reporter = Reporter::new(std::env::temp_dir(), &mut seen, &stop);
        let start = PhaseState::new(model, phase.training.optimizer(phase.trainable, phase.seed, phase.round));
        phase.run(start, task, None, Stopping::never(), None, &mut reporter)?;
        // The first step also warms caches and compiles kernels.
        let counted = &seen.batches[seen.batches.len().min(2) - 1..];
        let (tokens, seconds) = counted
            .iter()
            .fold((0, 0.0), |(tokens, seconds), figures| (tokens + figures.tokens, seconds + figures.seconds));
        self.training.push((phase.name.into(), tokens as f64 / seconds));
        Ok(())
    }

    /// The log-probs of the rows that a phase visits, and of what its loss makes of them.
    fn score(&mut self, data: &TaskData) -> HashMap<RowHash, f64> {
        let started = Instant::now();
        let made = [data.derived(), data.mismatched()].concat();
        let visited = data.visited_examples().map(|example| &self.prepared.train.dataset.examples[example]);
        let rows: Vec<&Example> = visited.chain(&made).collect();
        let mut groups = vec![];
        for row in &rows {
            groups.push(Group { prompt: &row.prompt, answers: row.answers.iter().map(|ids| ids.as_slice()).collect() });
        }
        let budget = self.prepared.scored_at_once();
        let mut logps = HashMap::new();
        for (row, answers) in rows.iter().zip(score_answers(&self.model, &groups, budget)) {
            logps.extend(answers.into_iter().enumerate().map(|(answer, score)| (row.answer_hash(answer), score)));
        }
        self.scored.0 += rows.iter().map(|row| row.tokens() as u64).sum::<u64>();
        self.scored.1 += started.elapsed().as_secs_f64();
        logps
    }

    /// A few short responses to held-out prompts.
    fn responses(&mut self) -> Result<(), TrainError> {
        let prepared = self.prepared;
        if !prepared.holds_out() {
            return Ok(());
        }
        let plan = &prepared.plan.evaluation;
        let few = EvaluationPlan {
            kl_samples: if plan.kl_samples == 0 { self.drawn } else { plan.kl_samples.min(self.drawn) },
            kl_max_new_tokens: plan.kl_max_new_tokens.min(DRAWN.1),
            ..plan.clone()
        };
        let (never, mut silent) = (AtomicBool::new(false), Memory::default());
        let reporter = Reporter::new(std::env::temp_dir(), &mut silent, &never);
        let started = Instant::now();
        let drawn = SampledResponses::sample(
            START,
            &self.model,
            &prepared.held_out.dataset,
            &few,
            prepared.tokenizer.terminators(),
            prepared.plan.seed,
            prepared.scored_at_once(),
            &reporter,
        )?;
        self.sampling = Some(drawn.tokens() as f64 / started.elapsed().as_secs_f64());
        Ok(())
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
