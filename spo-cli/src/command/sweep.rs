//! `spo sweep`

use std::path::{Path, PathBuf};

use clap::Args;
use spo_eval::report;
use spo_train::sweep::{Axis, Progress, Variant, sweep, variants};

use super::train::Settings;
use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::output::{Output, note};
use crate::view;

/// Run a run file with every combination of some settings, and compare what comes out
///
/// Each run is the run file with its values as --set. Runs that begin alike share the warm-up, the rounds and the cached
/// log-probabilities they have in common. The same command goes on with what is not finished; started several
/// times at once, on machines that see the directory, each process takes the next run that no other one has. Writes sweep.csv, the Pareto
/// front and the hypervolume as pictures, and sweep.html beside the runs.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The run file
    #[arg(value_name = "RUN.toml")]
    file: PathBuf,
    /// A key with its values: rounds.1.lambda=0,0.25,0.5 (numbers count from 0); several make a grid
    #[arg(long, value_name = "KEY=VALUE,VALUE", value_parser = Axis::parse)]
    grid: Vec<Axis>,
    /// Learn the dimensions in every order; all else of a round stays at its place
    #[arg(long, value_enum)]
    orders: Option<Orders>,
    /// Name the runs and run nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Orders {
    /// Every order
    All,
}

impl Arguments {
    pub fn run(self, output: &mut Output) -> Result<(), CliError> {
        let Settings { out, .. } = &self.settings;
        let out = out.clone();
        let spec = Settings { out: None, ..self.settings }.spec(&self.file)?;
        if self.grid.is_empty() && self.orders.is_none() {
            return Err(CliError::argument("sweep", "neither --grid nor --orders", "something to vary"));
        }
        let name = spec.name();
        let out = out.unwrap_or_else(|| beside(&self.file).join("sweeps").join(&name));
        let runs = variants(&spec, &self.grid, self.orders.is_some())?;
        if self.dry_run {
            return runs.iter().try_for_each(|run| output.line(&run.name));
        }
        let interrupt = Interrupt::listen(false, true)?;
        std::fs::create_dir_all(&out).map_err(|source| CliError::io(&out, source))?;
        let count = runs.len();
        let mut told = |index: usize, run: &Variant, progress: Progress| {
            if matches!(progress, Progress::Begins) {
                interrupt.reading();
            }
            note(format_args!("== run {} of {count}, {}: {}", index + 1, run.name, progress.words()));
        };
        let mut sink = || interrupt.hearing(view::progress());
        let summary = sweep(&name, &runs, &out, &mut sink, &mut told, &interrupt.stop)?;
        // For the eye: names stand as they are.
        output.line(report::sweep_markdown(&summary)?.replace("\\_", "_").trim_end())?;
        note(format_args!("table and pictures are in {}", out.display()));
        Ok(())
    }
}

fn beside(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).to_owned()
}
