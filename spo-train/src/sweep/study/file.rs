//! What a study file says.

use super::super::grid::{Variant, orders};
use super::Study;
use crate::config::{ConfigError, Place, RunSpec};
use serde::Deserialize;
use spo_eval::study::{StudyArm, StudyDesign};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Spanned;

/// What a study file says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct StudyFile {
    schema: Spanned<u32>,
    name: Spanned<String>,
    run: PathBuf,
    seeds: Spanned<Vec<u64>>,
    /// Parts of the prompts, of which each seed holds out the next.
    folds: Option<Spanned<usize>>,
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

/// Where something is wrong, which key, and what.
type Fault = (Range<usize>, String, String);

impl StudyFile {
    /// Reads and checks a study file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unread = |source| ConfigError::ReadStudy { path: path.to_owned(), source };
        let text: Arc<str> = std::fs::read_to_string(path).map_err(unread)?.into();
        let name = path.to_string_lossy();
        let at = |span: Range<usize>| Box::new(Place::in_text(&name, &text, span));
        let file: Self = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            at: at(error.span().unwrap_or(0..0)),
            message: error.message().to_owned(),
        })?;
        file.check().map_err(|(span, key, message)| ConfigError::Refused { at: at(span), key, message, hint: None })?;
        Ok(file)
    }

    /// The run file that it names, which lies relative to it.
    pub fn run(&self, path: &Path) -> Result<RunSpec, ConfigError> {
        RunSpec::from_file(&path.parent().unwrap_or(Path::new("")).join(&self.run))
    }

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
        if let Some(folds) = &self.folds {
            let found = *folds.get_ref();
            if found < 2 || !seeds.len().is_multiple_of(found) {
                let message = format!(
                    "found {found} with {} seeds, expected 2 or more, and as many seeds as folds or a multiple of them: \
                     every prompt is held out equally often",
                    seeds.len()
                );
                return fault(folds.span(), "folds", message);
            }
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

    /// Its runs.
    pub fn study(self, spec: &RunSpec) -> Result<Study, ConfigError> {
        let orders = match self.orders {
            Orders::All => orders(spec)?,
            Orders::AsWritten => vec![Variant { name: String::new(), settings: vec![], spec: spec.clone() }],
        };
        let (mut variants, mut places) = (vec![], vec![]);
        let folds = self.folds.as_ref().map(|folds| *folds.get_ref());
        for order in &orders {
            let words = order.settings.first().map_or("as-written", |(_, order)| order.as_str());
            for (number, seed) in self.seeds.get_ref().iter().enumerate() {
                for arm in &self.arms {
                    let (mut spec, arm_name) = (order.spec.clone(), arm.name.get_ref());
                    spec.apply_set(&format!("seed={seed}"))?;
                    if let Some(folds) = folds {
                        spec.apply_set(&format!("holdout-fold=\"{}/{folds}\"", number % folds + 1))?;
                        spec.apply_set("evaluation.by-prompt=true")?;
                    }
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
            folds,
        };
        Ok(Study { design, seeds: self.seeds.into_inner(), variants, places })
    }
}
