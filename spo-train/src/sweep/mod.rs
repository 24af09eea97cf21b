//! Several runs of one run file: a grid of settings, every order of the dimensions.
//!
//! Runs that begin alike share what is alike: the warm-up, rounds and cached log-probs of an earlier run are taken over.
//! Several processes may be at one sweep, on one machine or several that see its directory: each takes the next run that no
//! other one has.

mod grid;
mod study;

pub use grid::{Axis, Variant, variants};
pub use study::Study;

use crate::config::RunPlan;
use crate::events::sink::{Memory, read_events};
use crate::events::{Event, Sink};
use crate::persist::directory;
use crate::run::lock::Lock;
use crate::{Manifest, Prepared, TrainError, prepare, resume, run};
use serde_json::Value;
use spo_eval::{FinishedRun, RunSummary, SweepSummary, report};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// How one run of a sweep went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It was finished before.
    Found,
    /// It begins.
    Begins,
    /// Another process is at it.
    Elsewhere,
    /// It missed a gate: it has no place in the table.
    GateMissed,
}

impl Progress {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Found => "finished before",
            Self::Begins => "begins",
            Self::Elsewhere => "another process is at it",
            Self::GateMissed => "missed its gate",
        }
    }
}

/// Runs what is not finished yet of a sweep below `out` and what no other process is at, and writes its table, fronts and
/// report: those of the process that ends last have every run.
///
/// `sink` gives each run its own listener; `told` hears how far the sweep is.
///
/// # Errors
/// Whatever stops a run, but for a missed gate; a directory of another sweep. Runs finished before are kept.
pub fn sweep(
    name: &str,
    variants: &[Variant],
    out: &Path,
    sink: &mut dyn FnMut() -> Box<dyn Sink>,
    told: &mut dyn FnMut(usize, &Variant, Progress),
    stop: &AtomicBool,
) -> Result<SweepSummary, TrainError> {
    let mut found = SweepSummary::default();
    each(variants, out, sink, told, stop, &mut |finished| {
        let run = |(index, summary): (&usize, &RunSummary)| {
            let Variant { name, settings, .. } = &variants[*index];
            FinishedRun { name: name.clone(), settings: settings.clone(), summary: summary.clone() }
        };
        found = SweepSummary::of(name, &finished.iter().map(run).collect::<Vec<_>>())?;
        write(&found, out)
    })?;
    Ok(found)
}

/// Summaries by the index of the run.
type Finished = BTreeMap<usize, RunSummary>;

/// Runs what is not finished yet of these below `out` and what no other process is at, one after the other. `report` gets
/// what is known after each, with what other processes have finished, while no other process reports; a run that missed its
/// gate has no summary.
fn each(
    variants: &[Variant],
    out: &Path,
    sink: &mut dyn FnMut() -> Box<dyn Sink>,
    told: &mut dyn FnMut(usize, &Variant, Progress),
    stop: &AtomicBool,
    report: &mut dyn FnMut(&Finished) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let (mut finished, mut elsewhere) = (Finished::new(), vec![]);
    for (index, variant) in variants.iter().enumerate() {
        let mut spec = variant.spec.clone();
        let dir = out.join(&variant.name);
        spec.apply_set(&format!("out={}", Value::from(dir.to_string_lossy())))?;
        let mut prepared = prepare(&spec, &mut Memory::default())?;
        let done = match summary(&dir, &prepared.plan)? {
            Some(summary) => {
                told(index, variant, Progress::Found);
                Some(summary)
            }
            None => {
                let plan = prepared.plan.clone();
                prepared.source_runs = variants.iter().map(|variant| out.join(&variant.name)).collect();
                prepared.source_runs.retain(|other| other != &dir && other.exists());
                match go(prepared, &dir, &mut || told(index, variant, Progress::Begins), sink, stop) {
                    Ok(summary) => Some(summary),
                    Err(TrainError::GateMissed { .. }) => {
                        told(index, variant, Progress::GateMissed);
                        None
                    }
                    // Another process is at it, or began it since this one looked.
                    Err(TrainError::Locked { .. } | TrainError::OutExists { .. }) => {
                        told(index, variant, Progress::Elsewhere);
                        elsewhere.push((index, plan));
                        None
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        finished.extend(done.map(|summary| (index, summary)));
        // After every run: an interrupted sweep has a report of what there is.
        let _lock = Lock::wait(out)?;
        for (index, plan) in &elsewhere {
            let found = summary(&out.join(&variants[*index].name), plan)?;
            finished.extend(found.map(|summary| (*index, summary)));
        }
        report(&finished)?;
    }
    Ok(())
}

/// Begins a run or goes on with it, unless another process is at it.
fn go(
    mut prepared: Prepared,
    dir: &Path,
    begins: &mut dyn FnMut(),
    sink: &mut dyn FnMut() -> Box<dyn Sink>,
    stop: &AtomicBool,
) -> Result<RunSummary, TrainError> {
    // It is let go for the run itself to take it: a process that is faster has the run then.
    let free = |dir: &Path| if dir.exists() { Lock::take(dir).map(Some) } else { Ok(None) };
    let held = free(dir)?;
    let begun = Manifest::read(dir).is_ok();
    if !begun {
        prepared.source_runs.splice(..0, moved_aside(dir)?);
    }
    drop(held);
    begins();
    let mut sink = sink();
    match begun {
        true => resume(prepared, dir, &[], sink.as_mut(), stop),
        false => run(prepared, sink.as_mut(), stop),
    }
}

/// The summary of a run that is over; nothing if it is not, or not there.
fn summary(dir: &Path, plan: &RunPlan) -> Result<Option<RunSummary>, TrainError> {
    if !dir.join(directory::PLAN).exists() {
        return Ok(None);
    }
    let theirs = RunPlan::read(dir)?;
    if comparable(plan) != comparable(&theirs) {
        return Err(TrainError::OutExists { path: dir.into() });
    }
    // Another process may have written its plan and nothing else yet.
    let events = dir.join(directory::EVENTS);
    if !events.exists() {
        return Ok(None);
    }
    let over = |event: &Event| matches!(event, Event::RunFinished { .. });
    let records = read_events(&events)?;
    let Ok(text) = std::fs::read_to_string(dir.join(directory::SUMMARY)) else { return Ok(None) };
    if !records.last().is_some_and(|record| over(&record.event)) {
        return Ok(None);
    }
    Ok(Some(report::from_json(&text)?))
}

/// A plan without where its values came from: the file may have moved by a line.
fn comparable(plan: &RunPlan) -> RunPlan {
    RunPlan { origins: Default::default(), out: PathBuf::new(), ..plan.clone() }
}

/// Where a run that began but cannot go on is moved to: its policies may still be taken over.
fn moved_aside(dir: &Path) -> Result<Option<PathBuf>, TrainError> {
    let Ok(mut entries) = std::fs::read_dir(dir) else { return Ok(None) };
    // Another process may have made the directory and be about to begin.
    if entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lock")) {
        return Ok(None);
    }
    let aside = dir.with_file_name(format!(".{}.unfinished", dir.file_name().unwrap_or_default().to_string_lossy()));
    if aside.exists() {
        std::fs::remove_dir_all(&aside).map_err(|e| TrainError::io(&aside, e))?;
    }
    std::fs::rename(dir, &aside).map_err(|e| TrainError::io(dir, e))?;
    Ok(Some(aside))
}

/// `sweep.csv`, `hypervolume.csv`, `sweep.json`, the pictures and the reports.
fn write(summary: &SweepSummary, out: &Path) -> Result<(), TrainError> {
    let file = |name: &str, text: String| {
        let path = out.join(name);
        std::fs::write(&path, text).map_err(|e| TrainError::io(&path, e))
    };
    file("sweep.csv", csv(&report::sweep_rows(summary), out)?)?;
    file("hypervolume.csv", csv(&report::hypervolume_rows(summary)?, out)?)?;
    file("sweep.json", serde_json::to_string_pretty(summary).expect("a summary is plain data"))?;
    file("front.svg", report::front_svg(summary))?;
    file("hypervolume.svg", report::hypervolume_svg(summary)?)?;
    file("sweep.md", report::sweep_markdown(summary)?)?;
    file("sweep.html", report::sweep_html(summary)?)
}

/// Rows as the text of a CSV file in `out`.
fn csv(rows: &[Vec<String>], out: &Path) -> Result<String, TrainError> {
    let mut table = csv::Writer::from_writer(vec![]);
    rows.iter().try_for_each(|row| table.write_record(row)).map_err(|e| TrainError::io(out, e.into()))?;
    let bytes = table.into_inner().map_err(|e| TrainError::io(out, e.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
