//! Names in a run directory: of its files, of the policies that a run makes, and of what may change between two starts.

use crate::config::{ArmPlan, RoundPlan};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What the run was made from.
pub const MANIFEST: &str = "manifest.json";
/// Every resolved setting.
pub const PLAN: &str = "plan.json";
/// Every event, one a line.
pub const EVENTS: &str = "events.jsonl";
/// Rows that were dropped, cut or are doubtful.
pub const ROWS: &str = "rows.jsonl";
/// Finished stages.
pub const JOURNAL: &str = "progress.jsonl";
/// Directory of policies.
pub const POLICIES: &str = "policies";
/// Directory of checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// Directory of log-probs and sampled answers.
pub const CACHE: &str = "cache";
/// Directory of the exported model.
pub const MODEL: &str = "model";
/// The report's figures.
pub const SUMMARY: &str = "summary.json";
/// The report as text.
pub const REPORT: &str = "report.md";
/// The report as a page.
pub const PAGE: &str = "report.html";

/// Files and directories that make a directory a run.
pub const RUN_MARKS: &[&str] = &[MANIFEST, PLAN, JOURNAL, EVENTS, CHECKPOINTS, POLICIES, CACHE, MODEL];

/// Name of π_0 where there is no warm-up.
pub const START: &str = "start";
/// Name of the warm-up and of the policy it makes.
pub const WARMUP: &str = "warmup";
/// The artefact that names a run's settings.
pub const PLAN_ARTEFACT: &str = "plan";

/// Behind a phase's name: its best policy.
pub const BEST: &str = "@best";

/// The policy that an arm makes: the round's name, with the control's name behind it.
pub fn policy_name(round: &RoundPlan, arm: &ArmPlan) -> String {
    if arm.name == round.main().name { round.name.clone() } else { format!("{}.{}", round.name, arm.name) }
}

/// Where a phase's best policy so far is kept, in the directory of policies.
pub fn best_path(policies: &Path, phase: &str) -> PathBuf {
    policies.join(format!("{phase}{BEST}"))
}

/// Where a best policy is written before it takes the place of the one before.
pub(crate) fn best_aside(policies: &Path, phase: &str) -> PathBuf {
    policies.join(format!(".{phase}{BEST}.part"))
}

/// Where the policy that a phase had after so many steps is kept, if it is.
pub(crate) fn kept_path(policies: &Path, phase: &str, step: u64) -> PathBuf {
    policies.join(format!(".{phase}.kept-{step}"))
}

/// What may be another than when the run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// A value of the run file.
    RunFile,
    /// A data file.
    Data,
    /// A file of the starting model.
    Model,
    /// The version of this program, or its build.
    Version,
    /// The record of all these, which is missing or damaged: anything may be another.
    Manifest,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::RunFile, Self::Data, Self::Model, Self::Version, Self::Manifest];

    /// As a user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RunFile => "run-file",
            Self::Data => "data",
            Self::Model => "model",
            Self::Version => "version",
            Self::Manifest => "manifest",
        }
    }
}
