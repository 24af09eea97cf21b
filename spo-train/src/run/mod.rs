//! A run from its file to its reports.

mod asked;
mod benchmark;
pub mod disk;
mod evaluation;
mod export;
mod front;
pub(crate) mod gradients;
mod held;
mod hold;
mod hub;
mod judge;
pub(crate) mod lock;
pub mod manifest;
pub(crate) mod online;
mod optimizer;
mod parts;
pub(crate) mod place;
pub mod prepare;
pub(crate) mod reference;
mod resident;
pub(crate) mod reuse;
pub(crate) mod schedule;
mod stage;
pub(crate) mod stages;
mod steering;
pub mod together;

pub use prepare::{Prepared, prepare, prepare_on};

use crate::TrainError;
use crate::config::RunPlan;
use crate::events::reporter::Reporter;
use crate::events::sink::csv::Tables;
use crate::events::sink::mlflow::Mlflow;
use crate::events::sink::tensorboard::TensorBoard;
use crate::events::sink::{All, EventFile, Nowhere, Record, read_events};
use crate::events::summary::summarize;
use crate::events::watchdog::Watchdogs;
use crate::events::{Event, Sink};
use crate::persist::directory::{self, Change, RUN_MARKS};
use crate::persist::durable;
use crate::persist::journal::Journal;
use crate::phase::checkpoint::{self, Checkpoints, Saved};
use lock::Lock;
use manifest::Manifest;
use prepare::check_room;
use spo_data::LoadReport;
use spo_eval::{RunSummary, report};
use spo_team::Team;
use stages::Driver;
use std::io::ErrorKind;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Runs a prepared plan in its run directory.
///
/// # Errors
/// The directory holds a run already or cannot be written; or anything that stops a run. What was
/// done before stays in the directory, and [`resume`] goes on from there.
pub fn run(prepared: Prepared, sink: &mut dyn Sink, stop: &AtomicBool) -> Result<RunSummary, TrainError> {
    run_together(prepared, Rc::default(), sink, stop)
}

/// As [`run`], with the other processes of a team, each of which calls this. The run directory is one that all of them see;
/// rank 0 writes it, and its sink alone hears events. Where it ends with an error, the caller says so by [`Team::fail`].
///
/// # Errors
/// Also where processes have other data, models, settings or programs, or cannot share the shards.
pub fn run_together(
    mut prepared: Prepared,
    team: Rc<Team>,
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<RunSummary, TrainError> {
    together::settle(&mut prepared.plan, &team, None)?;
    let out = prepared.plan.out.clone();
    let now = together::same(&prepared, &team)?;
    let mut held = None;
    team.root(|| {
        let refused = || Err(TrainError::OutExists { path: out.clone() });
        if is_run(&out) {
            return refused();
        }
        check_room(&prepared)?;
        std::fs::create_dir_all(&out).map_err(|e| TrainError::io(&out, e))?;
        let lock = Lock::take(&out)?;
        if is_run(&out) {
            return refused();
        }
        now.write(&out)?;
        held = Some((lock, Journal::create(&out)?));
        Ok(())
    })?;
    let (_lock, journal) = held.unzip();
    together::seen(&out, &now, &team)?;
    let begun = Begun { journal, saved: None, events: 0 };
    let warning = (!prepared.holds_out()).then(|| "nothing is held out (holdout = 0), so nothing is evaluated".into());
    go_through(&prepared, team, begun, warning, sink, stop)
}

/// Where `error` says that no pairs are left: names their rows in the run directory `out`, unless a run is there, and says
/// so in the error. Other errors come back as they are.
pub fn keep_dropped(error: TrainError, out: &Path) -> TrainError {
    let TrainError::NoPairs { what, report, rows: None } = error else { return error };
    if report.incidents.is_empty() || is_run(out) {
        return TrainError::NoPairs { what, report, rows: None };
    }
    let path = out.join(directory::ROWS);
    let failed = |e| TrainError::io(&path, e);
    match std::fs::create_dir_all(out).map_err(failed).and_then(|()| write_rows([&*report], &path)) {
        Ok(()) => TrainError::NoPairs { what, report, rows: Some(path) },
        Err(error) => error,
    }
}

fn is_run(out: &Path) -> bool {
    RUN_MARKS.iter().any(|name| out.join(name).exists())
}

/// Goes on with the run in `out`, whose run file is prepared again, from its last checkpoint. On the
/// CPU the result is bit for bit that of a run that never stopped, unless something has changed.
///
/// # Errors
/// There is no run, another process is at it, or something has changed that `allow` does not have;
/// or anything that stops a run.
pub fn resume(
    prepared: Prepared,
    out: &Path,
    allow: &[Change],
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<RunSummary, TrainError> {
    resume_together(prepared, Rc::default(), out, allow, sink, stop)
}

/// As [`resume`], with the other processes of a team, of which there may be another number than the run began with; see
/// [`run_together`].
///
/// # Errors
/// As both.
pub fn resume_together(
    mut prepared: Prepared,
    team: Rc<Team>,
    out: &Path,
    allow: &[Change],
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<RunSummary, TrainError> {
    prepared.plan.out = out.into();
    if !out.is_dir() {
        return Err(TrainError::NoRun { out: out.into() });
    }
    together::settle(&mut prepared.plan, &team, Some(out))?;
    let now = together::same(&prepared, &team)?;
    let mut held = None;
    let (saved, events, warning) = team.root(|| {
        let (lock, journal, found) = reopen(&prepared, out, &now, allow, sink)?;
        held = Some((lock, journal));
        Ok::<_, TrainError>(found)
    })?;
    let (_lock, journal) = held.unzip();
    together::seen(out, &now, &team)?;
    go_through(&prepared, team, Begun { journal, saved, events }, warning, sink, stop)
}

/// What a run goes on from: its checkpoint, the bytes of `events.jsonl` that count, and what there is to warn of.
type Found = (Option<Saved>, u64, Option<String>);

/// Takes a run directory to go on in it.
fn reopen(
    prepared: &Prepared,
    out: &Path,
    now: &Manifest,
    allow: &[Change],
    sink: &mut dyn Sink,
) -> Result<(Lock, Journal, Found), TrainError> {
    let lock = Lock::take(out)?;
    let changes = match Manifest::read(out) {
        Ok(manifest) => manifest.changes(now),
        Err(_) if allow.contains(&Change::Manifest) => vec![(Change::Manifest, "it is not known what changed".into())],
        Err(error) => return Err(error),
    };
    let refused = changes.iter().filter(|(change, _)| !allow.contains(change));
    let refused: Vec<_> = refused.map(|(change, what)| (change.name(), what.clone())).collect();
    if !refused.is_empty() {
        return Err(TrainError::Changed { out: out.into(), changes: refused });
    }
    check_room(prepared)?;
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
    Ok((lock, journal, (saved, events, warning)))
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// How far a run directory is.
struct Begun {
    /// Of rank 0 alone.
    journal: Option<Journal>,
    saved: Option<Saved>,
    /// Bytes of `events.jsonl` that count.
    events: u64,
}

fn go_through(
    prepared: &Prepared,
    team: Rc<Team>,
    begun: Begun,
    warning: Option<String>,
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<RunSummary, TrainError> {
    let summary = match team.is_root() {
        true => tell_and_go_through(prepared, team.clone(), begun, warning, sink, stop),
        false => follow(prepared, team.clone(), begun, stop),
    }?;
    // None is done before rank 0 has written the reports.
    team.agree(0)?;
    Ok(summary)
}

/// Goes through a run that rank 0 writes and tells of. The summary is of what this process knows.
fn follow(prepared: &Prepared, team: Rc<Team>, begun: Begun, stop: &AtomicBool) -> Result<RunSummary, TrainError> {
    let (plan, out) = (&prepared.plan, prepared.plan.out.as_path());
    let mut nowhere = Nowhere;
    let reporter = Reporter::new(out.into(), &mut nowhere, stop).with_team(team.clone());
    let checkpoints = Checkpoints::open(out, &plan.checkpoints, begun.saved, 0)?.with_team(team);
    let mut driver = Driver::new(prepared, reporter, None, checkpoints)?;
    guarded(out, || driver.run())?;
    Ok(summarize(plan, &[]))
}

fn tell_and_go_through(
    prepared: &Prepared,
    team: Rc<Team>,
    begun: Begun,
    warning: Option<String>,
    sink: &mut dyn Sink,
    stop: &AtomicBool,
) -> Result<RunSummary, TrainError> {
    let (plan, out) = (&prepared.plan, prepared.plan.out.as_path());
    let policies = out.join(directory::POLICIES);
    std::fs::create_dir_all(&policies).map_err(|e| TrainError::io(&policies, e))?;
    let text = serde_json::to_string_pretty(plan).expect("a plan holds only strings and numbers");
    write(&out.join(directory::PLAN), &text)?;
    let reports = [&prepared.train, &prepared.held_out].map(|set| &set.dataset.report);
    write_rows(reports, &out.join(directory::ROWS))?;
    let events = out.join(directory::EVENTS);
    let finished = begun.journal.as_ref().and_then(|journal| journal.events.as_ref()).map_or(0, |mark| mark.bytes);
    let file = EventFile::reopen(&events, begun.events)?;
    let kept = read_events(&events)?;
    let seconds = kept.last().map_or(0.0, |record| record.at);

    // These are made from the events alone: what was kept is told them again.
    let mut watchdogs = Watchdogs::new(plan.watchdog.clone());
    let (mut tables, mut tensorboard) = (Tables::create(out)?, TensorBoard::create(out, seconds)?);
    let mut mlflow = Mlflow::of(plan, out);
    let mut sinks = All(vec![&mut tables, &mut tensorboard, sink]);
    sinks.0.extend(mlflow.as_mut().map(|mlflow| mlflow as &mut dyn Sink));
    for record in &kept {
        sinks.earlier(record.at, &record.event)?;
        watchdogs.look(&record.event);
    }
    let mut reporter = Reporter::new(out.into(), &mut sinks, stop)
        .with_team(team.clone())
        .with_events(file, Duration::from_secs_f64(seconds))
        .with_watchdogs(watchdogs);
    let checkpoints = Checkpoints::open(out, &plan.checkpoints, begun.saved, finished)?.with_team(team);
    if let Some(text) = warning {
        reporter.emit(Event::Warning { text })?;
    }
    let mut driver = Driver::new(prepared, reporter, begun.journal, checkpoints)?;
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
        let out = out.into();
        let out_of_memory = OUT_OF_MEMORY.iter().any(|words| reason.to_lowercase().contains(words));
        Err(if out_of_memory { TrainError::OutOfMemory { reason, out } } else { TrainError::Failed { reason, out } })
    })
}

/// What graphics cards' drivers and the libraries above them say where memory runs out; they tell it by a panic's text alone.
const OUT_OF_MEMORY: &[&str] = &["out of memory", "out of device memory", "out-of-memory", "can't allocate buffer"];

fn write_reports(plan: &RunPlan, records: &[Record], out: &Path) -> Result<RunSummary, TrainError> {
    let summary = summarize(plan, records);
    write(&out.join(directory::REPORT), &report::markdown(&summary))?;
    write(&out.join(directory::PAGE), &report::html(&summary))?;
    write(&out.join(directory::SUMMARY), &report::to_json(&summary)?)?;
    Ok(summary)
}

/// Names every row that was dropped, cut or is doubtful, where there are any.
fn write_rows<'a>(reports: impl IntoIterator<Item = &'a LoadReport>, path: &Path) -> Result<(), TrainError> {
    let failed = |e| TrainError::io(path, e);
    let mut lines = Vec::new();
    reports.into_iter().try_for_each(|report| report.write_incidents(&mut lines)).map_err(failed)?;
    if !lines.is_empty() {
        return std::fs::write(path, lines).map_err(failed);
    }
    // One of an attempt before is of other data.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failed(e)),
        _ => Ok(()),
    }
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

    #[test]
    fn a_device_without_memory_says_what_to_change() {
        for text in ["CUDA_ERROR_OUT_OF_MEMORY: out of memory", "out of device memory allocating 34359738368 bytes"] {
            let error = guarded(Path::new("runs/a"), || panic!("{text}")).unwrap_err();
            assert!(matches!(&error, TrainError::OutOfMemory { reason, .. } if reason == text), "{error}");
            let hint = error.hint().unwrap();
            assert!(hint.contains("tokens-per-micro-batch") && hint.contains("--resume runs/a"), "{hint}");
        }
    }
}
