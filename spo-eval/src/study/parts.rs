//! What a study compares, and what it found, in parts.

use super::{OverPrompts, PairedTest};
use crate::{HoldSummary, RunSummary};
use serde::{Deserialize, Serialize};

/// Level of every test, after Holm's correction.
pub const LEVEL: f64 = 0.05;

/// A finished run of a study.
#[derive(Debug, Clone)]
pub struct StudyRun {
    /// Order of its dimensions.
    pub order: String,
    /// Its arm.
    pub arm: String,
    /// What came out; the seed is its own.
    pub summary: RunSummary,
}

/// What a study compares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StudyDesign {
    /// Name of the study.
    pub name: String,
    /// What is run with every seed and order.
    pub arms: Vec<StudyArm>,
    /// The method that all others' fronts are held against.
    pub baseline: String,
    /// KL to the start in nats per response at which policies are compared.
    pub kl: Vec<f64>,
    /// Difference of accuracies, 0 to 1, below which two arms count as equivalent.
    pub margin: f64,
    /// Parts of the prompts, of which each seed holds out one; `None`: as the run file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folds: Option<usize>,
}

/// A setting of a method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StudyArm {
    /// Its name.
    pub name: String,
    /// What it is a setting of.
    pub method: String,
    /// The arm that it is held against, if any.
    pub against: Option<String>,
}

/// An arm at one place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StudyPoint {
    /// Order of the dimensions.
    pub order: String,
    /// The arm.
    pub arm: String,
    /// Seed of the run.
    pub seed: u64,
    /// KL at which it was read off; `None`: the final policy.
    pub at_kl: Option<f64>,
    /// KL to the start, nats per response, if it is known.
    pub kl: Option<f64>,
    /// Accuracy on each dimension, 0 to 1.
    pub accuracies: Vec<f64>,
}

/// A run held against a bound on an earlier dimension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StudyHold {
    /// Order of the dimensions.
    pub order: String,
    /// The arm.
    pub arm: String,
    /// Seed of the run.
    pub seed: u64,
    /// The bound, and what was reached.
    #[serde(flatten)]
    pub hold: HoldSummary,
}

/// An arm, or a method, against the baseline's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StudyComparison {
    /// Order of the dimensions.
    pub order: String,
    /// The arm; of a hypervolume the method.
    pub arm: String,
    /// The other one.
    pub against: String,
    /// A dimension, or `hypervolume`.
    pub measure: String,
    /// KL at which they were compared; `None`: at the end.
    pub at_kl: Option<f64>,
    /// The tests over seeds.
    pub test: PairedTest,
    /// p of a difference after Holm's correction over the study.
    pub p_difference: f64,
    /// p of equivalence after Holm's correction over the study.
    pub p_equivalence: f64,
    /// The same difference at the end as other prompts would have it, where runs told their prompts apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_prompts: Option<OverPrompts>,
}

/// What a comparison allows to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The arm has more.
    Better,
    /// The arm has less.
    Worse,
    /// They differ by less than the margin.
    Equivalent,
    /// Neither is shown.
    Open,
}

impl StudyDesign {
    /// Where arms are compared: at the end, and at each KL.
    pub fn places(&self) -> Vec<Option<f64>> {
        std::iter::once(None).chain(self.kl.iter().copied().map(Some)).collect()
    }
}

impl StudyComparison {
    /// What is compared, and where.
    pub(super) fn key(&self) -> ([&str; 4], Option<f64>) {
        ([&self.order, &self.arm, &self.against, &self.measure].map(String::as_str), self.at_kl)
    }

    /// What it allows to say.
    #[must_use]
    pub fn claim(&self) -> Claim {
        match self {
            Self { p_difference, test, .. } if *p_difference < LEVEL && test.mean > 0.0 => Claim::Better,
            Self { p_difference, .. } if *p_difference < LEVEL => Claim::Worse,
            Self { p_equivalence, .. } if *p_equivalence < LEVEL => Claim::Equivalent,
            _ => Claim::Open,
        }
    }
}
