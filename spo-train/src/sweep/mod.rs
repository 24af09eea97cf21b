//! Several runs of one run file: a grid of settings, every order of the dimensions.
//!
//! Runs that begin alike share what is alike: the warm-up, rounds and cached log-probs of an earlier run are taken over.

mod grid;
mod study;

pub use grid::{Axis, Variant, variants};
pub use study::Study;

use crate::config::RunPlan;
use crate::events::sink::{Memory, read_events};
use crate::events::{Event, Sink};
use crate::persist::directory;
use crate::{Manifest, TrainError, prepare, resume, run};
use serde_json::Value;
use spo_eval::{FinishedRun, RunSummary, SweepSummary, report};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// How one run of a sweep went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It was finished before.
    Found,
    /// It begins.
    Begins,
    /// It missed a gate: it has no place in the table.
    GateMissed,
}

impl Progress {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Found => "finished before",
            Self::Begins => "begins",
            Self::GateMissed => "missed its gate",
        }
    }
}

/// Runs what is not finished yet of a sweep below `out`, and writes its table, fronts and report.
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
    let mut finished: Vec<FinishedRun> = vec![];
    each(variants, out, sink, told, stop, &mut |index, summary| {
        let Variant { name: run, settings, .. } = &variants[index];
        finished.push(FinishedRun { name: run.clone(), settings: settings.clone(), summary });
        // After every run: an interrupted sweep has a report of what there is.
        write(&SweepSummary::of(name, &finished)?, out)
    })?;
    let summary = SweepSummary::of(name, &finished)?;
    write(&summary, out)?;
    Ok(summary)
}

/// Runs what is not finished yet of these below `out`, one after the other; `ended` gets each summary, but of a run that
/// missed its gate.
fn each(
    variants: &[Variant],
    out: &Path,
    sink: &mut dyn FnMut() -> Box<dyn Sink>,
    told: &mut dyn FnMut(usize, &Variant, Progress),
    stop: &AtomicBool,
    ended: &mut dyn FnMut(usize, RunSummary) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    for (index, variant) in variants.iter().enumerate() {
        let mut spec = variant.spec.clone();
        let dir = out.join(&variant.name);
        spec.apply_set(&format!("out={}", Value::from(dir.to_string_lossy())))?;
        let mut prepared = prepare(&spec, &mut Memory::default())?;
        if let Some(summary) = summary(&dir, &prepared.plan)? {
            told(index, variant, Progress::Found);
            ended(index, summary)?;
            continue;
        }
        told(index, variant, Progress::Begins);
        prepared.source_runs = variants.iter().map(|variant| out.join(&variant.name)).collect();
        prepared.source_runs.retain(|other| other != &dir && other.exists());
        let mut sink = sink();
        let result = match Manifest::read(&dir) {
            Ok(_) => resume(prepared, &dir, &[], sink.as_mut(), stop),
            Err(_) => {
                prepared.source_runs.splice(..0, moved_aside(&dir)?);
                run(prepared, sink.as_mut(), stop)
            }
        };
        match result {
            Ok(summary) => ended(index, summary)?,
            Err(TrainError::GateMissed { .. }) => told(index, variant, Progress::GateMissed),
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
    let over = |event: &Event| matches!(event, Event::RunFinished { .. });
    let records = read_events(&dir.join(directory::EVENTS))?;
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
    if !dir.exists() {
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
