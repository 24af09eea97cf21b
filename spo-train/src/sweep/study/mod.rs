//! A sweep that is an experiment: arms × seeds × orders of one run file, from a file of its own.

mod again;
mod file;

use super::grid::Variant;
use super::{Progress, csv, each};
use crate::TrainError;
use crate::config::ConfigError;
use crate::events::Sink;
use file::StudyFile;
use spo_eval::study::{StudyDesign, StudyPrompt, StudyRun, StudySummary};
use spo_eval::{RunSummary, report};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// An experiment.
#[derive(Debug, Clone)]
pub struct Study {
    /// What is compared.
    pub design: StudyDesign,
    /// Seeds of the runs.
    pub seeds: Vec<u64>,
    /// Its runs, those that share most behind each other.
    pub variants: Vec<Variant>,
    /// Order and arm of each run.
    places: Vec<(String, String)>,
}

impl Study {
    /// Reads a study file; the run file that it names lies relative to it, and is changed by `sets` for all arms alike
    /// ([`RunSpec::apply_set`](crate::config::RunSpec::apply_set)).
    ///
    /// # Errors
    /// A file that cannot be read; an unknown key, a value out of range, an arm that is named twice or sets what the run
    /// file does not take, a baseline that is no arm: each with its place.
    pub fn from_file(path: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        let file = StudyFile::read(path)?;
        let mut spec = file.run(path)?;
        sets.iter().try_for_each(|set| spec.apply_set(set))?;
        file.study(&spec)
    }

    /// Runs what is not finished yet below `out`, and writes `study.md`, `study.html`, `study.json`, `study.csv` and
    /// `study.svg`, where runs tell their prompts apart `study-prompts.csv`; the rest is as with [`sweep`](super::sweep()).
    ///
    /// # Errors
    /// As [`sweep`](super::sweep()).
    pub fn run(
        &self,
        out: &Path,
        sink: &mut dyn FnMut() -> Box<dyn Sink>,
        told: &mut dyn FnMut(usize, &Variant, Progress),
        stop: &AtomicBool,
    ) -> Result<StudySummary, TrainError> {
        let mut found = StudySummary::default();
        each(&self.variants, out, sink, told, stop, &mut |finished| {
            let run = |(index, summary): (&usize, &RunSummary)| {
                let (order, arm) = self.places[*index].clone();
                StudyRun { order, arm, summary: summary.clone() }
            };
            let runs: Vec<StudyRun> = finished.iter().map(run).collect();
            found = StudySummary::of(&self.design, &runs)?;
            write(&found, out)?;
            write_prompts(&StudySummary::prompts(&self.design, &runs), out)
        })?;
        Ok(found)
    }

    /// Keeps the runs of these seeds alone, each of which must be one of the study's.
    pub fn keep_seeds(&mut self, seeds: &[u64]) {
        self.seeds.retain(|seed| seeds.contains(seed));
        let kept: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        let own = |run: &Variant| run.settings.iter().any(|(key, value)| key == "seed" && kept.contains(value));
        let runs = self.variants.drain(..).zip(self.places.drain(..)).filter(|(run, _)| own(run));
        (self.variants, self.places) = runs.collect::<Vec<_>>().into_iter().unzip();
    }
}

fn write(summary: &StudySummary, out: &Path) -> Result<(), TrainError> {
    let file = |name: &str, text: &str| {
        let path = out.join(name);
        std::fs::write(&path, text).map_err(|e| TrainError::io(&path, e))
    };
    file("study.md", &report::study_markdown(summary))?;
    file("study.html", &report::study_html(summary))?;
    file("study.json", &serde_json::to_string_pretty(summary).expect("a summary is plain data"))?;
    file("study.svg", &report::study_front_svg(summary))?;
    file("study.csv", &csv(&report::study_rows(summary), out)?)
}

/// The table of prompts.
const PROMPTS: &str = "study-prompts.csv";

fn write_prompts(prompts: &[StudyPrompt], out: &Path) -> Result<(), TrainError> {
    let path = out.join(PROMPTS);
    match prompts.is_empty() {
        true => Ok(()),
        false => {
            std::fs::write(&path, csv(&report::study_prompt_rows(prompts), out)?).map_err(|e| TrainError::io(&path, e))
        }
    }
}
