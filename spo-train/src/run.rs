//! A run from its file to its reports.

use crate::arm::ArmData;
use crate::checkpoint::{self, Checkpoints, Saved};
use crate::config::spec::{Dtype, Source, Split};
use crate::config::{Facts, RunPlan, RunSpec, resolve};
use crate::driver::{Driver, START, WARMUP};
use crate::durable;
use crate::event::{Event, Sink};
use crate::forecast::Disk;
use crate::held_out::LabelledSet;
use crate::journal::Journal;
use crate::lock::Lock;
use crate::manifest::{Change, Manifest};
use crate::session::Session;
use crate::sink::csv::Tables;
use crate::sink::tensorboard::TensorBoard;
use crate::sink::{All, EventFile, Record, read_events};
use crate::summary::summarize;
use crate::watchdog::Watchdogs;
use crate::{TrainError, adapters, policy, room};
use burn::tensor::Device;
use spo_data::{DataSpec, Dataset, Part, Tokenizer, load, load_cached, split_by_prompt};
use spo_eval::{RunSummary, report};
use spo_model::{ModelSpec, device};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Files and directories that make a directory a run.
const RUN_MARKS: &[&str] =
    &["manifest.json", "plan.json", "progress.jsonl", "events.jsonl", "checkpoints", "policies", "cache", "model"];

/// Everything a run needs, read and checked; nothing written yet.
#[derive(Debug)]
pub struct Prepared {
    /// The resolved run file.
    pub plan: RunPlan,
    /// Where it came from.
    pub source: Source,
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
    /// Whether a run that may not fit on the disk is refused.
    pub check_room: bool,
}

/// Reads model shape, tokenizer and data, and resolves the plan. `spo plan` stops here.
///
/// # Errors
/// Whatever is wrong with the run file, the model directory, the device or the data.
pub fn prepare(spec: &RunSpec, sink: &mut dyn Sink) -> Result<Prepared, TrainError> {
    let sections = spec.sections();
    let model = ModelSpec::from_path(&sections.model.path)?;
    let device = device::open(sections.model.device.as_deref().unwrap_or("auto"))?;
    let tokenizer = Tokenizer::from_path(&sections.model.path)?;
    let text = spec.text(Some(model.context))?;
    let mut read = |split: Split| -> Result<Dataset, TrainError> {
        let of_split = sections.data.iter().filter(|entry| entry.split == split);
        // Of a directory whose files name their split, an entry reads the files of its own.
        let part = match split {
            Split::Train => Part::Train,
            Split::Test => Part::Test,
        };
        let specs: Vec<DataSpec> = of_split.map(|entry| DataSpec { part, ..entry.source.clone() }).collect();
        let (name, mut told) = (if split == Split::Train { "train" } else { "held-out" }, Ok(()));
        let mut progress = |rows: usize| {
            if told.is_ok() {
                told = sink.event(0.0, &Event::Reading { split: name.into(), rows });
            }
        };
        let dataset = match &sections.token_cache {
            Some(directory) => load_cached(&specs, &text, &tokenizer, directory, &mut progress)?.0,
            None => load(&specs, &text, &tokenizer, &mut progress)?,
        };
        told.map(|()| dataset)
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
    let (source, donors) = (spec.source().clone(), vec![]);
    Ok(Prepared { plan, source, model, device, tokenizer, train, held_out, donors, check_room: true })
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
/// The directory holds a run already or cannot be written; or anything that stops a run. What was
/// done before stays in the directory, and [`resume`] goes on from there.
pub fn run(prepared: Prepared, sink: &mut dyn Sink, stop: &AtomicBool) -> Result<RunSummary, TrainError> {
    let out = prepared.plan.out.clone();
    let taken = || RUN_MARKS.iter().any(|name| out.join(name).exists());
    let refused = || Err(TrainError::OutExists { path: out.clone() });
    if taken() {
        return refused();
    }
    check_room(&prepared)?;
    std::fs::create_dir_all(&out).map_err(|e| TrainError::io(&out, e))?;
    let _lock = Lock::take(&out)?;
    if taken() {
        return refused();
    }
    Manifest::of(&prepared)?.write(&out)?;
    let begun = Begun { journal: Journal::create(&out)?, saved: None, events: 0 };
    go_through(&prepared, begun, None, sink, stop)
}

/// Goes on with the run in `out`, whose run file is prepared again, from its last checkpoint. On the
/// CPU the result is bit for bit that of a run that never stopped, unless something has changed.
///
/// # Errors
/// There is no run, another process is at it, or something has changed that `allow` does not have;
/// or anything that stops a run.
pub fn resume(
    mut prepared: Prepared,
    out: &Path,
    allow: &[Change],
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<RunSummary, TrainError> {
    prepared.plan.out = out.into();
    if !out.is_dir() {
        return Err(TrainError::NoRun { out: out.into() });
    }
    let _lock = Lock::take(out)?;
    let now = Manifest::of(&prepared)?;
    let changes = match Manifest::read(out) {
        Ok(manifest) => manifest.changes(&now),
        Err(_) if allow.contains(&Change::Manifest) => vec![(Change::Manifest, "it is not known what changed".into())],
        Err(error) => return Err(error),
    };
    let refused: Vec<_> = changes.iter().filter(|(change, _)| !allow.contains(change)).cloned().collect();
    if !refused.is_empty() {
        return Err(TrainError::Changed { out: out.into(), changes: refused });
    }
    check_room(&prepared)?;
    let (journal, fault) = Journal::reopen(out)?;
    let finished = journal.events.as_ref().map_or(0, |events| events.bytes);
    let (saved, damaged) = checkpoint::latest(out, finished)?;
    let from = match &saved {
        Some(Saved { header, path }) => format!("step {} of {} ({})", header.step, header.phase, file_name(path)),
        None => journal.stages().last().map_or("the beginning".into(), |stage| format!("the end of `{stage}`")),
    };
    let events = saved.as_ref().and_then(|saved| saved.header.events.as_ref()).map_or(finished, |mark| mark.bytes);
    sink.event(0.0, &Event::Resumed { from: from.clone(), damaged: fault.into_iter().chain(damaged).collect() })?;
    // From here on the run is another one: the next resuming compares with this.
    now.write(out)?;
    let changes = changes.into_iter().map(|(change, what)| format!("{}: {what}", change.name()));
    let changes = changes.collect::<Vec<_>>().join("; ");
    let warning =
        (!changes.is_empty()).then(|| format!("went on from {from} although something has changed: {changes}"));
    go_through(&prepared, Begun { journal, saved, events }, warning, sink, stop)
}

/// Refuses a run for which the disk has no room, beside what its directory holds already.
fn check_room(prepared: &Prepared) -> Result<(), TrainError> {
    match prepared.check_room {
        true => room::require(&prepared.plan.out, Disk::still_needed(prepared)?, false),
        false => Ok(()),
    }
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// How far a run directory is.
struct Begun {
    journal: Journal,
    saved: Option<Saved>,
    /// Bytes of `events.jsonl` that count.
    events: u64,
}

fn go_through(
    prepared: &Prepared,
    begun: Begun,
    warning: Option<String>,
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<RunSummary, TrainError> {
    let (plan, out) = (&prepared.plan, prepared.plan.out.as_path());
    let policies = out.join(policy::DIR);
    std::fs::create_dir_all(&policies).map_err(|e| TrainError::io(&policies, e))?;
    let text = serde_json::to_string_pretty(plan).expect("a plan holds only strings and numbers");
    write(&out.join("plan.json"), &text)?;
    write_rows(prepared, &out.join("rows.jsonl"))?;
    let events = out.join("events.jsonl");
    let finished = begun.journal.events.as_ref().map_or(0, |events| events.bytes);
    let file = EventFile::reopen(&events, begun.events)?;
    let kept = read_events(&events)?;
    let seconds = kept.last().map_or(0.0, |record| record.at);

    // These are made from the events alone: what was kept is told them again.
    let mut watchdogs = Watchdogs::new(plan.watchdog.clone());
    let (mut tables, mut tensorboard) = (Tables::create(out)?, TensorBoard::create(out, seconds)?);
    let mut sinks = All(vec![&mut tables, &mut tensorboard, sink]);
    for record in &kept {
        sinks.earlier(record.at, &record.event)?;
        watchdogs.look(&record.event);
    }
    let mut session = Session::new(out.into(), &mut sinks, stop)
        .with_events(file, Duration::from_secs_f64(seconds))
        .with_watchdogs(watchdogs)
        .with_checkpoints(Checkpoints::open(out, &plan.checkpoints, begun.saved, finished)?);
    if let Some(text) = warning {
        session.emit(Event::Warning { text })?;
    }
    let mut driver = Driver::new(prepared, session, begun.journal)?;
    let result = guarded(out, || driver.run());
    if let Err(error) = &result {
        // Where this cannot be kept, as on a full disk, the error itself still tells.
        let _ = driver.stopped(error);
    }
    if let Err(error @ TrainError::Interrupted { .. }) = result {
        return Err(error);
    }
    // A run that failed has a report too: of what it was and why it ended.
    let report = read_events(&events).and_then(|records| write_reports(plan, &records, out));
    result.and(report)
}

/// A GPU that fails makes burn panic; that is an error like others.
fn guarded(out: &Path, work: impl FnOnce() -> Result<(), TrainError>) -> Result<(), TrainError> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
        let reason = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".into());
        Err(TrainError::Failed { reason, out: out.into() })
    })
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

fn write(path: &Path, text: &str) -> Result<(), TrainError> {
    durable::write(path, format!("{}\n", text.trim_end()).as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::guarded;
    use crate::TrainError;
    use std::path::Path;

    #[test]
    fn a_device_that_fails_is_an_error() {
        let error = guarded(Path::new("runs/a"), || panic!("the device is lost")).unwrap_err();
        assert!(matches!(&error, TrainError::Failed { reason, .. } if reason == "the device is lost"), "{error}");
        assert!(error.hint().unwrap().contains("spo train --resume runs/a"));
    }
}
