//! `spo study`

use std::path::{Path, PathBuf};

use clap::Args;
use spo_eval::report;
use spo_eval::study::{StudySummary, detectable};
use spo_train::sweep::{Progress, Study, Variant};

use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::output::{Output, note};
use crate::view;

/// Run an experiment: arms, seeds and orders of one run file, with the tests that say what the data allow to claim
///
/// A study file names a run file, its seeds, arms with their settings, and the arm that all others are held against. Runs that
/// begin alike share the warm-up, the rounds and the cached log-probabilities they have in common; the same command goes on with
/// what is not finished. Arms are compared at the end and, with `kl`, at equal KL to the start. With `folds` each seed holds out
/// another part of the prompts. Writes study.html, study.md, study.csv, study.json and study.svg beside the runs; `--from` writes
/// them anew from a study.json, or from several of machines that ran other `--seeds` each.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The study file
    #[arg(value_name = "STUDY.toml", required_unless_present = "from")]
    file: Option<PathBuf>,
    /// Write the tables and pictures of a finished study again, from its study.json alone; from several, of other seeds each,
    /// those of the whole study
    #[arg(long, value_name = "STUDY.json", num_args = 1.., conflicts_with_all = ["file", "dry_run"])]
    from: Vec<PathBuf>,
    /// Where the runs go [default: studies/NAME beside the file]; with --from where the tables go [default: beside the file,
    /// if it is one]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Change a value of the run file for all arms, such as model.path=MODEL; may be repeated
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "from")]
    set: Vec<String>,
    /// Run these of the study's seeds alone, such as 1,2
    #[arg(long, value_name = "SEEDS", value_delimiter = ',', conflicts_with = "from")]
    seeds: Vec<u64>,
    /// Name the runs, say what so many seeds can show, and run nothing
    #[arg(long)]
    dry_run: bool,
}

/// Standard deviations between seeds, in points, for which the plan says what can be shown.
const DEVIATIONS: [f64; 3] = [1.0, 2.0, 3.0];

impl Arguments {
    pub fn run(self, output: &mut Output) -> Result<(), CliError> {
        let beside = |file: &Path| file.parent().unwrap_or("".as_ref()).to_owned();
        let Some(file) = self.file else {
            return match (&self.from[..], self.out) {
                ([json], out) => {
                    let out = out.unwrap_or_else(|| beside(json));
                    shown(&Study::again(json, &out)?, &out, output)
                }
                (parts, Some(out)) => shown(&Study::joined(parts, &out)?, &out, output),
                (parts, None) => Err(CliError::argument(
                    "--from",
                    format!("{} files", parts.len()),
                    "--out DIR, where the whole study goes",
                )),
            };
        };
        let mut study = Study::from_file(&file, &self.set).map_err(spo_train::TrainError::from)?;
        if let Some(unknown) = self.seeds.iter().find(|seed| !study.seeds.contains(seed)) {
            let known: Vec<String> = study.seeds.iter().map(u64::to_string).collect();
            return Err(CliError::argument("--seeds", unknown.to_string(), format!("some of {}", known.join(", "))));
        }
        if !self.seeds.is_empty() {
            study.keep_seeds(&self.seeds);
        }
        let out = self.out.unwrap_or_else(|| beside(&file).join("studies").join(&study.design.name));
        let seeds = study.seeds.len();
        for deviation in DEVIATIONS {
            note(format_args!(
                "power: {seeds} seeds show a difference of {:.1} points four times out of five where it varies by {deviation} between seeds",
                detectable(seeds, deviation)
            ));
        }
        if self.dry_run {
            return study.variants.iter().try_for_each(|run| output.line(&run.name));
        }
        let interrupt = Interrupt::listen(false, true)?;
        std::fs::create_dir_all(&out).map_err(|source| CliError::io(&out, source))?;
        let count = study.variants.len();
        let mut told = |index: usize, run: &Variant, progress: Progress| {
            if matches!(progress, Progress::Begins) {
                interrupt.reading();
            }
            note(format_args!("== run {} of {count}, {}: {}", index + 1, run.name, progress.words()));
        };
        let mut sink = || interrupt.hearing(view::progress());
        let summary = study.run(&out, &mut sink, &mut told, &interrupt.stop)?;
        shown(&summary, &out, output)
    }
}

fn shown(summary: &StudySummary, out: &Path, output: &mut Output) -> Result<(), CliError> {
    // For the eye: names stand as they are.
    output.line(report::study_markdown(summary).replace("\\_", "_").trim_end())?;
    note(format_args!("tables and pictures are in {}", out.display()));
    Ok(())
}
