//! A run from its file to its reports.

use crate::config::spec::Split;
use crate::config::{Facts, RunPlan, RunSpec, resolve};
use crate::driver::Driver;
use crate::event::{Event, Sink};
use crate::held_out::LabelledSet;
use crate::session::Session;
use crate::sink::csv::Tables;
use crate::sink::tensorboard::TensorBoard;
use crate::sink::{All, EventFile, Memory, Record};
use crate::summary::summarize;
use crate::watchdog::Watchdogs;
use crate::{TrainError, adapters};
use burn::tensor::Device;
use spo_core::{PairNumbers, Sides};
use spo_data::{DataSpec, Dataset, Tokenizer, load, split_by_prompt};
use spo_eval::{RunSummary, report};
use spo_model::{ModelSpec, device};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Files and directories that make a directory a run.
const RUN_MARKS: &[&str] = &["plan.json", "events.jsonl", "policies", "cache", "model"];

/// Everything a run needs, read and checked; nothing written yet.
#[derive(Debug)]
pub struct Prepared {
    /// The resolved run file.
    pub plan: RunPlan,
    /// The starting model's shape.
    pub model: ModelSpec,
    /// Where it will run.
    pub device: Device,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The pairs to train on.
    pub train: LabelledSet,
    /// The pairs to evaluate on.
    pub held_out: LabelledSet,
}

/// Reads model shape, tokenizer and data, and resolves the plan. `spo plan` stops here.
///
/// # Errors
/// Whatever is wrong with the run file, the model directory, the device or the data.
pub fn prepare(spec: &RunSpec, sink: &mut dyn Sink) -> Result<Prepared, TrainError> {
    let sections = spec.sections();
    let model = ModelSpec::from_dir(&sections.model.path)?;
    let device = device::open(sections.model.device.as_deref().unwrap_or("auto"))?;
    let tokenizer = Tokenizer::from_dir(&sections.model.path)?;
    let text = spec.text(Some(model.context))?;
    let read = |split: Split| -> Result<Dataset, TrainError> {
        let of_split = sections.data.iter().filter(|entry| entry.split == split);
        let specs: Vec<DataSpec> = of_split.map(|entry| entry.source.clone()).collect();
        Ok(load(&specs, &text, &tokenizer, &mut |_| ())?)
    };
    let (mut train, mut test) = (read(Split::Train)?, read(Split::Test)?);
    let facts = |train: &Dataset| Facts {
        pairs: train.dimensions().into_iter().map(|(name, count)| (name, count.pairs)).collect(),
        context_length: Some(model.context),
    };
    let mut plan = resolve(spec, &facts(&train))?;
    if let Some(holdout) = plan.holdout {
        (train, test) = split_by_prompt(train, holdout, plan.seed);
        plan = resolve(spec, &facts(&train))?;
    }
    for example in train.examples.iter().chain(&test.examples) {
        let answers: Vec<&[u32]> = example.answers.iter().map(Vec::as_slice).collect();
        model.check_row(&example.id, &example.prompt, &answers)?;
    }
    check_objectives(&plan)?;
    adapters::check(spec, &plan, &model)?;
    let mut dimensions: Vec<String> = vec![];
    for round in &plan.rounds {
        if !dimensions.contains(&round.dimension) {
            dimensions.push(round.dimension.clone());
        }
    }
    // A warm-up that is evaluated on the way needs held-out answers of its own dimensions.
    let warmup = plan.warmup.iter().filter(|warmup| warmup.training.eval_every > 0);
    for dimension in warmup.flat_map(|warmup| &warmup.dimensions) {
        if test.pairs(dimension).is_empty() {
            return Err(TrainError::NoPairs { what: format!("held-out pairs of `{dimension}`") });
        }
    }
    let labelled =
        |split, dataset| LabelledSet::new(split, dataset, dimensions.clone(), &plan.evaluation.boilerplate, &tokenizer);
    let (train, held_out) = (labelled("train", train)?, labelled("held-out", test)?);
    for dimension in &dimensions {
        for set in [&train, &held_out] {
            if set.pairs(dimension).is_empty() {
                return Err(TrainError::NoPairs { what: format!("{} pairs of `{dimension}`", set.split) });
            }
        }
    }
    sink.event(
        0.0,
        &Event::DataLoaded {
            sets: [train.summaries(), held_out.summaries()].concat(),
            conflicts: [train.conflicts(), held_out.conflicts()].concat(),
        },
    )?;
    Ok(Prepared { plan, model, device, tokenizer, train, held_out })
}

/// Refuses an objective that needs what no run has, before anything is trained: an arm of round `n`
/// has the log-probs of `n` earlier policies and the answers' lengths.
fn check_objectives(plan: &RunPlan) -> Result<(), TrainError> {
    for (index, round) in plan.rounds.iter().enumerate() {
        let zeros = || Sides { chosen: vec![0.0], rejected: vec![0.0] };
        let mut numbers = PairNumbers::new(vec![0.0], vec![0.0]);
        numbers.reference = Some(zeros());
        numbers.earlier = vec![zeros(); index + 1];
        numbers.lengths = Some(zeros());
        for arm in &round.arms {
            let objective = spo_core::objective::build(&arm.objective, &arm.options)?;
            objective.needs().check(objective.name(), &numbers)?;
        }
    }
    Ok(())
}

/// Runs a prepared plan in its run directory.
///
/// # Errors
/// The directory holds a run already or cannot be written; or anything that stops a run. Policies
/// and log-probs finished before stay in the directory.
pub fn run(prepared: Prepared, sink: &mut dyn Sink, stop: &AtomicBool) -> Result<RunSummary, TrainError> {
    let out = prepared.plan.out.clone();
    create_out(&out)?;
    let text = serde_json::to_string_pretty(&prepared.plan).expect("a plan holds only strings and numbers");
    write(&out.join("plan.json"), &text)?;
    let mut memory = Memory::default();
    let mut file = EventFile::create(&out.join("events.jsonl"))?;
    let (mut tables, mut tensorboard) = (Tables::create(&out)?, TensorBoard::create(&out, 0.0)?);
    let mut sinks = All(vec![&mut file, &mut memory, &mut tables, &mut tensorboard, sink]);
    let session = Session::new(out.clone(), &mut sinks, stop);
    let session = session.with_watchdogs(Watchdogs::new(prepared.plan.watchdog.clone()));
    let result = Driver::new(&prepared, session)?.run();
    let seconds = memory.0.last().map_or(0.0, |record| record.at);
    if let Err(error) = &result {
        let stopped = Event::RunStopped { reason: error.to_string() };
        All(vec![&mut file, &mut memory, sink]).event(seconds, &stopped)?;
    }
    if let Err(error @ TrainError::Interrupted { .. }) = result {
        return Err(error);
    }
    // A run that failed has a report too: of what it was and why it ended.
    let summary = write_reports(&prepared.plan, &memory.0, &out)?;
    result.map(|()| summary)
}

fn write_reports(plan: &RunPlan, records: &[Record], out: &Path) -> Result<RunSummary, TrainError> {
    let summary = summarize(plan, records);
    write(&out.join("report.md"), &report::markdown(&summary))?;
    write(&out.join("report.html"), &report::html(&summary))?;
    write(&out.join("summary.json"), &report::to_json(&summary)?)?;
    Ok(summary)
}

fn create_out(out: &Path) -> Result<(), TrainError> {
    if RUN_MARKS.iter().any(|name| out.join(name).exists()) {
        return Err(TrainError::OutExists { path: out.into() });
    }
    let policies = out.join("policies");
    std::fs::create_dir_all(&policies).map_err(|e| TrainError::io(&policies, e))
}

fn write(path: &Path, text: &str) -> Result<(), TrainError> {
    std::fs::write(path, format!("{}\n", text.trim_end())).map_err(|e| TrainError::io(path, e))
}
