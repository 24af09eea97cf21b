//! `spo train`

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::Value;
use spo_eval::{GateOutcome, report};
use spo_train::config::RunSpec;
use spo_train::events::sink::Nowhere;
use spo_train::forecast::Forecast;
use spo_train::run::together;
use spo_train::{
    Change, Event, Manifest, Prepared, Sink, TrainError, keep_dropped, prepare, prepare_on, resume_together,
    run_together,
};

use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::outcome::Outcome;
use crate::output::Output;
use crate::processes::{Distributed, Processes};
use crate::view;

/// Changes to a run file from the command line.
#[derive(Debug, Default, Args)]
pub(crate) struct Settings {
    /// Change one value of the run file: rounds.1.lambda=0.5 (numbers count from 0)
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Where to compute: auto, cpu, vulkan, metal, wgpu, cuda:0
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Run directory; must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

impl Settings {
    /// The run file with the changes.
    pub fn spec(&self, file: &Path) -> Result<RunSpec, CliError> {
        self.change(RunSpec::from_file(file)?)
    }

    /// A run file with the changes.
    pub fn change(&self, mut spec: RunSpec) -> Result<RunSpec, CliError> {
        let quoted = |text: String| Value::String(text);
        for argument in &self.set {
            spec.apply_set(argument)?;
        }
        if let Some(device) = &self.device {
            spec.apply_set(&format!("model.device={}", quoted(device.clone())))?;
        }
        if let Some(out) = &self.out {
            spec.apply_set(&format!("out={}", quoted(out.to_string_lossy().into_owned())))?;
        }
        Ok(spec)
    }
}

/// Train a model as a run file says
///
/// Writes the run directory: the final model, the policy of each round, events.jsonl, plan.json and the report; then
/// prints the policy × dimension table. Ctrl-C, a termination signal or SIGUSR1 finishes the current step, writes a checkpoint
/// and exits with 130; a second one exits at once, and so does the first one while data and model are read. `spo train --resume DIR` goes on.
/// Several processes that mpirun or srun has started share the run (docs/distributed.md).
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The run file; `spo init` writes one
    #[arg(value_name = "RUN.toml", required_unless_present = "resume")]
    file: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// Show the plan and train nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on with the interrupted run in this directory; its run file is read from where it was, or as RUN.toml says
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    resume: Option<PathBuf>,
    /// Go on although this is another than when the run began, with --resume; or although the disk may be too small
    #[arg(long, value_name = "CHANGE", value_enum, value_delimiter = ',')]
    allow: Vec<Allowed>,
    /// How several processes of one run find each other
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    distributed: Distributed,
    /// Full screen with curves per dimension, instead of a progress bar
    #[arg(long)]
    tui: bool,
}

impl Arguments {
    pub fn run(&self, output: &mut Output) -> Result<Outcome, CliError> {
        Processes::start(self.distributed)?.together(|processes| self.run_on(processes, output))
    }

    fn run_on(&self, processes: &Processes, output: &mut Output) -> Result<Outcome, CliError> {
        let spec = match (&self.file, &self.resume) {
            (Some(file), resumed) => {
                let mut spec = self.settings.spec(file)?;
                // A run that goes on reads the commits that it began with.
                if let Some(Ok(manifest)) = resumed.as_deref().map(Manifest::read) {
                    spec.pin(&manifest.hub);
                }
                spec
            }
            (None, Some(out)) => self.settings.change(Manifest::read(out)?.spec()?)?,
            (None, None) => unreachable!("the command line asks for one of them"),
        };
        if self.dry_run && !processes.team.is_root() {
            return Ok(Outcome::Done);
        }
        if self.dry_run {
            let mut prepared = prepare(&spec, view::progress().as_mut())?;
            together::settle(&mut prepared.plan, &processes.team, self.resume.as_deref())?;
            let forecast = Forecast::of(&prepared)?;
            return super::plan::show(&prepared, &forecast, false, output).map(|()| Outcome::Done);
        }
        let allow: Vec<Change> = self.allow.iter().filter_map(|allowed| allowed.change()).collect();
        if let (None, Some(change)) = (&self.resume, allow.first()) {
            let name = format!("--allow {}", change.name());
            return Err(CliError::argument(&name, "a run that begins", "--resume DIR, or --allow disk"));
        }
        let check_room = !self.allow.iter().any(|allowed| matches!(allowed, Allowed::Disk));
        let resume = self.resume.as_deref().map(|out| (out, allow.as_slice()));
        train(&spec, resume, check_room, self.tui, processes, output)
    }
}

/// What may have changed since a run began.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Allowed {
    /// A value of the run file
    RunFile,
    /// A data file
    Data,
    /// A file of the starting model
    Model,
    /// The version of spo, or its build
    Version,
    /// The record of all these is damaged: anything
    Manifest,
    /// Less room on the disk than the run may need
    Disk,
}

impl Allowed {
    fn change(self) -> Option<Change> {
        match self {
            Self::RunFile => Some(Change::RunFile),
            Self::Data => Some(Change::Data),
            Self::Model => Some(Change::Model),
            Self::Version => Some(Change::Version),
            Self::Manifest => Some(Change::Manifest),
            Self::Disk => None,
        }
    }
}

/// Hears how far downloads and the reading of data are; what was read is told again by the run, at its place among the
/// events.
struct OnlyReading<'a>(&'a mut dyn Sink);

impl Sink for OnlyReading<'_> {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        let passing = matches!(event, Event::Reading { .. } | Event::Downloading { .. } | Event::Warning { .. });
        if passing { self.0.event(seconds, event) } else { Ok(()) }
    }
}

/// Rank 0 prepares before the others: what it downloads and tokenises is there then.
fn prepare_together(spec: &RunSpec, processes: &Processes, sink: &mut dyn Sink) -> Result<Prepared, TrainError> {
    let mut own = None;
    processes.team.root_unhurried(|| {
        own = Some(prepare_on(spec, processes.card, &mut OnlyReading(sink))?);
        Ok::<_, TrainError>(())
    })?;
    own.map_or_else(|| prepare_on(spec, processes.card, &mut Nowhere), Ok)
}

/// Runs to the end and prints the result. `resume` is the directory of an interrupted run, and what may have
/// changed; `check_room` refuses what may not fit on the disk.
pub(super) fn train(
    spec: &RunSpec,
    resume: Option<(&Path, &[Change])>,
    check_room: bool,
    tui: bool,
    processes: &Processes,
    output: &mut Output,
) -> Result<Outcome, CliError> {
    let team = &processes.team;
    let interrupt = Interrupt::listen(tui && team.is_root(), team.is_root())?;
    let shown = match tui {
        _ if !team.is_root() => Box::new(Nowhere),
        true => view::own_screen(&interrupt)?,
        false => view::progress(),
    };
    let mut sink = interrupt.hearing(shown);
    let prepared = prepare_together(spec, processes, sink.as_mut());
    let mut prepared = match (prepared, resume) {
        (Err(error), None) => return Err(keep_dropped(error, &spec.out()).into()),
        (prepared, _) => prepared?,
    };
    prepared.check_room = check_room;
    if !team.is_root() {
        interrupt.works();
    }
    let summary = match resume {
        Some((out, allow)) => resume_together(prepared, team.clone(), out, allow, sink.as_mut(), &interrupt.stop),
        None => run_together(prepared, team.clone(), sink.as_mut(), &interrupt.stop),
    }?;
    drop(sink);
    processes.tell_spent()?;
    if !team.is_root() {
        return Ok(Outcome::Done);
    }
    output.line(report::table(&summary).trim_end())?;
    let passed = |outcome| matches!(outcome, GateOutcome::Passed | GateOutcome::WentOn);
    let passed = summary.gates.iter().all(|gate| passed(gate.outcome));
    Ok(if passed { Outcome::Done } else { Outcome::GateMissed })
}
