//! A sweep that is an experiment: arms × seeds × orders of one run file, from a file of its own.

use super::grid::{Variant, orders};
use super::{Progress, each};
use crate::TrainError;
use crate::config::{ConfigError, Place, RunSpec};
use crate::events::Sink;
use serde::Deserialize;
use spo_eval::study::{StudyArm, StudyDesign, StudyRun, StudySummary};
use spo_eval::{RunSummary, report};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use toml::Spanned;

/// What a study file says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct StudyFile {
    schema: Spanned<u32>,
    name: Spanned<String>,
    run: PathBuf,
    seeds: Spanned<Vec<u64>>,
    #[serde(default)]
    orders: Orders,
    baseline: Spanned<String>,
    #[serde(default = "no_places")]
    kl: Spanned<Vec<f64>>,
    #[serde(default = "two_points")]
    margin: Spanned<f64>,
    arms: Vec<ArmFile>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Orders {
    /// That of the run file.
    #[default]
    AsWritten,
    /// Every one.
    All,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ArmFile {
    name: Spanned<String>,
    /// What it is a setting of; its own name if absent.
    method: Option<String>,
    /// The arm that it is held against; the baseline if absent.
    against: Option<Spanned<String>>,
    /// Values as of `--set`.
    #[serde(default)]
    set: Vec<String>,
}

fn no_places() -> Spanned<Vec<f64>> {
    Spanned::new(0..0, vec![])
}

fn two_points() -> Spanned<f64> {
    Spanned::new(0..0, 0.02)
}

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
    /// Reads a study file; the run file that it names lies relative to it.
    ///
    /// # Errors
    /// A file that cannot be read; an unknown key, a value out of range, an arm that is named twice or sets what the run
    /// file does not take, a baseline that is no arm: each with its place.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let text: Arc<str> = text.into();
        let name = path.to_string_lossy();
        let at = |span: Range<usize>| Box::new(Place::in_text(&name, &text, span));
        let file: StudyFile = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            at: at(error.span().unwrap_or(0..0)),
            message: error.message().to_owned(),
        })?;
        file.check().map_err(|(span, key, message)| ConfigError::Refused { at: at(span), key, message, hint: None })?;
        let spec = RunSpec::from_file(&path.parent().unwrap_or(Path::new("")).join(&file.run))?;
        file.study(&spec)
    }

    /// Runs what is not finished yet below `out`, and writes `study.md`, `study.html`, `study.json`, `study.csv` and
    /// `study.svg`; the rest is as with [`sweep`](super::sweep()).
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
            found = StudySummary::of(&self.design, &finished.iter().map(run).collect::<Vec<_>>())?;
            write(&found, out)
        })?;
        Ok(found)
    }
}

/// Where something is wrong, which key, and what.
type Fault = (Range<usize>, String, String);

impl StudyFile {
    fn check(&self) -> Result<(), Fault> {
        let fault = |span: Range<usize>, key: &str, message: String| Err((span, key.to_owned(), message));
        if *self.schema.get_ref() != 1 {
            return fault(self.schema.span(), "schema", format!("found {}, expected 1", self.schema.get_ref()));
        }
        let name = self.name.get_ref();
        if name.is_empty() || name.contains(['/', '\\']) {
            return fault(self.name.span(), "name", format!("found {name:?}, expected a name without slashes"));
        }
        let seeds = self.seeds.get_ref();
        let twice = seeds.iter().enumerate().find(|(index, seed)| seeds[..*index].contains(seed));
        if seeds.is_empty() || twice.is_some() {
            return fault(self.seeds.span(), "seeds", "expected one seed or more, none of them twice".to_owned());
        }
        if self.kl.get_ref().iter().any(|kl| !(kl.is_finite() && *kl > 0.0)) {
            return fault(self.kl.span(), "kl", "expected numbers of nats above 0".to_owned());
        }
        let margin = *self.margin.get_ref();
        if !(margin > 0.0 && margin < 1.0) {
            return fault(self.margin.span(), "margin", format!("found {margin}, expected a share between 0 and 1"));
        }
        let names: Vec<&str> = self.arms.iter().map(|arm| arm.name.get_ref().as_str()).collect();
        for (index, arm) in self.arms.iter().enumerate() {
            let name = names[index];
            let plain = |letter: char| letter.is_alphanumeric() || "-_.+".contains(letter);
            if name.is_empty() || !name.chars().all(plain) {
                return fault(
                    arm.name.span(),
                    "arms.name",
                    format!("found {name:?}, expected letters, digits and -_.+"),
                );
            }
            if names[..index].contains(&name) {
                return fault(arm.name.span(), "arms.name", format!("{name:?} is there twice"));
            }
        }
        let others = self.arms.iter().filter_map(|arm| Some(("arms.against", arm.against.as_ref()?)));
        for (key, other) in std::iter::once(("baseline", &self.baseline)).chain(others) {
            if !names.contains(&other.get_ref().as_str()) {
                let message = format!("found {:?}, expected one of the arms: {}", other.get_ref(), names.join(", "));
                return fault(other.span(), key, message);
            }
        }
        Ok(())
    }

    fn study(self, spec: &RunSpec) -> Result<Study, ConfigError> {
        let orders = match self.orders {
            Orders::All => orders(spec)?,
            Orders::AsWritten => vec![Variant { name: String::new(), settings: vec![], spec: spec.clone() }],
        };
        let (mut variants, mut places) = (vec![], vec![]);
        for order in &orders {
            let words = order.settings.first().map_or("as-written", |(_, order)| order.as_str());
            for seed in self.seeds.get_ref() {
                for arm in &self.arms {
                    let (mut spec, arm_name) = (order.spec.clone(), arm.name.get_ref());
                    spec.apply_set(&format!("seed={seed}"))?;
                    arm.set.iter().try_for_each(|set| spec.apply_set(set))?;
                    let parts = [("order", words), ("seed", &seed.to_string()), ("arm", arm_name)];
                    let settings = parts.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
                    variants.push(Variant { name: format!("{words}_seed={seed}_{arm_name}"), settings, spec });
                    places.push((words.to_owned(), arm_name.clone()));
                }
            }
        }
        let baseline = self.baseline.into_inner();
        let arm = |arm: ArmFile| {
            let name = arm.name.into_inner();
            let against = arm.against.map(Spanned::into_inner).or_else(|| Some(baseline.clone()));
            let (method, against) = (arm.method.unwrap_or(name.clone()), against.filter(|other| *other != name));
            StudyArm { name, method, against }
        };
        let arms: Vec<StudyArm> = self.arms.into_iter().map(arm).collect();
        let own = arms.iter().find(|arm| arm.name == baseline).map(|arm| arm.method.clone());
        let design = StudyDesign {
            name: self.name.into_inner(),
            arms,
            baseline: own.unwrap_or_default(),
            kl: self.kl.into_inner(),
            margin: self.margin.into_inner(),
        };
        Ok(Study { design, seeds: self.seeds.into_inner(), variants, places })
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
    file("study.csv", &super::csv(&report::study_rows(summary), out)?)
}
