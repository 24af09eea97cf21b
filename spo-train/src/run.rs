//! A run from its file to its reports.

use crate::arm::ArmData;
use crate::config::spec::{Dtype, Split};
use crate::config::{Facts, RunPlan, RunSpec, resolve};
use crate::driver::{Driver, START, WARMUP};
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
use spo_data::{DataSpec, Dataset, Part, Tokenizer, load, load_cached, split_by_prompt};
use spo_eval::{RunSummary, report};
use spo_model::{ModelSpec, device};
use std::path::{Path, PathBuf};
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
    /// Directories of earlier runs: policies that they made in the same way are not trained again.
    pub donors: Vec<PathBuf>,
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
        // Of a directory whose files name their split, an entry reads the files of its own.
        let part = match split {
            Split::Train => Part::Train,
            Split::Test => Part::Test,
        };
        let specs: Vec<DataSpec> = of_split.map(|entry| DataSpec { part, ..entry.source.clone() }).collect();
        Ok(match &sections.token_cache {
            Some(directory) => load_cached(&specs, &text, &tokenizer, directory, &mut |_| ())?.0,
            None => load(&specs, &text, &tokenizer, &mut |_| ())?,
        })
    };
    let (mut train, mut test) = (read(Split::Train)?, read(Split::Test)?);
    let bytes = match sections.model.dtype.unwrap_or(Dtype::F32) {
        Dtype::F32 => 4,
        Dtype::Bf16 | Dtype::F16 => 2,
    };
    let facts = |train: &Dataset| Facts {
        context_length: Some(model.context),
        model_bytes: Some(bytes * model.parameters()),
        ..Facts::of(train)
    };
    let mut plan = resolve(spec, &facts(&train))?;
    if let Some(holdout) = plan.holdout {
        (train, test) = split_by_prompt(train, holdout, plan.seed);
        plan = resolve(spec, &facts(&train))?;
    }
    for example in train.examples.iter().chain(&test.examples) {
        let answers: Vec<&[u32]> = example.answers.iter().map(|answer| answer.as_slice()).collect();
        model.check_row(&example.id, &example.prompt, &answers)?;
    }
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
        if !test.answers(dimension).iter().any(|row| row.desirable) {
            return Err(TrainError::NoPairs { what: format!("held-out answers of `{dimension}`") });
        }
    }
    let labelled =
        |split, dataset| LabelledSet::new(split, dataset, dimensions.clone(), &plan.evaluation.boilerplate, &tokenizer);
    let (train, held_out) = (labelled("train", train)?, labelled("held-out", test)?);
    for dimension in &dimensions {
        for set in [&train, &held_out] {
            if set.judged(dimension).is_empty() {
                return Err(TrainError::NoPairs { what: format!("{} data of `{dimension}`", set.split) });
            }
        }
    }
    check_objectives(&plan, &train.dataset, &held_out.dataset)?;
    sink.event(
        0.0,
        &Event::DataLoaded {
            sets: [train.summaries(), held_out.summaries()].concat(),
            conflicts: [train.conflicts(), held_out.conflicts()].concat(),
        },
    )?;
    Ok(Prepared { plan, model, device, tokenizer, train, held_out, donors: vec![] })
}

/// Refuses an objective that needs what the data or the rounds before lack, before anything is trained.
fn check_objectives(plan: &RunPlan, train: &Dataset, held_out: &Dataset) -> Result<(), TrainError> {
    let mut names = vec![if plan.warmup.is_some() { WARMUP } else { START }.to_string()];
    for round in &plan.rounds {
        for arm in &round.arms {
            ArmData::new(train, &round.dimension, arm)?.check(&names)?;
            // Its loss on held-out rows is computed on the way.
            if arm.training.eval_every > 0 {
                let data = ArmData::new(held_out, &round.dimension, arm)?;
                data.check(&names)?;
                if data.len() == 0 {
                    let what = format!("held-out {} of `{}`", arm.data.words(), round.dimension);
                    return Err(TrainError::NoPairs { what });
                }
            }
        }
        names.push(round.name.clone());
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
    write_rows(&prepared, &out.join("rows.jsonl"))?;
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

/// Names every row that was dropped, cut or is doubtful, where there are any.
fn write_rows(prepared: &Prepared, path: &Path) -> Result<(), TrainError> {
    let mut lines = Vec::new();
    for set in [&prepared.train, &prepared.held_out] {
        set.dataset.report.write_incidents(&mut lines).map_err(|e| TrainError::io(path, e))?;
    }
    if lines.is_empty() { Ok(()) } else { std::fs::write(path, lines).map_err(|e| TrainError::io(path, e)) }
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
