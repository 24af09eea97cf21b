//! What can go wrong in a run.

pub(crate) mod config;

pub use config::{ConfigError, Place};

use spo_data::LoadReport;
use spo_eval::report::bytes;
use spo_team::TeamError;
use std::path::{Path, PathBuf};

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The run file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data.
    #[error(transparent)]
    Data(#[from] spo_data::DataError),
    /// The model.
    #[error(transparent)]
    Model(#[from] spo_model::ModelError),
    /// The objective.
    #[error(transparent)]
    Core(#[from] spo_core::CoreError),
    /// The evaluation.
    #[error(transparent)]
    Eval(#[from] spo_eval::EvalError),
    /// A scorer.
    #[error(transparent)]
    Score(#[from] spo_score::ScoreError),
    /// The Hugging Face Hub.
    #[error(transparent)]
    Hub(#[from] spo_hub::HubError),
    /// The processes that share the run.
    #[error(transparent)]
    Team(#[from] TeamError),
    /// The user's program that measures policies.
    #[error("evaluation.command on {policy}, `{command}`: {reason}")]
    Command {
        /// The program with its arguments.
        command: String,
        /// The policy.
        policy: String,
        /// What went wrong.
        reason: String,
        /// Where its standard error went.
        log: PathBuf,
    },
    /// An online round whose answers make no pair.
    #[error("{round}: no pairs: {reason}")]
    NoOnlinePairs {
        /// The round.
        round: String,
        /// What became of the answers.
        reason: String,
    },
    /// Rows or contexts that a policy for many users cannot be made of.
    #[error("steering: {reason}")]
    Steering {
        /// What is wrong.
        reason: String,
    },
    /// A sink of events from outside of this crate could not keep one; see [`TrainError::sink`].
    #[error(transparent)]
    Sink(Box<dyn std::error::Error + Send + Sync>),
    /// A file of the run directory could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The run directory is taken.
    #[error("{}: the directory exists and is not empty", path.display())]
    OutExists {
        /// The directory.
        path: PathBuf,
    },
    /// A file of the run directory is not what this program wrote.
    #[error("{}: damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A value that must be finite is not.
    #[error("{phase}, step {step}: {quantity} is {found}; the ids of the batch are in {}", saved.display())]
    NotFinite {
        /// Where in the run.
        phase: String,
        /// Optimiser step, from 1.
        step: u64,
        /// Which value.
        quantity: &'static str,
        /// Its value.
        found: f64,
        /// The file with the ids of the rows that were being processed.
        saved: PathBuf,
    },
    /// The first loss of a round is not what theory says it must be.
    #[error(
        "{phase}: the first batch's loss is {found}, but at the start of a round it must be {expected} (policy ≡ reference)"
    )]
    StepZero {
        /// Which round.
        phase: String,
        /// Loss seen.
        found: f64,
        /// Loss implied by the identity.
        expected: f64,
    },
    /// No pairs are left to train or evaluate on.
    #[error("{what}: no pairs are left")]
    NoPairs {
        /// Which set, and why its rows were dropped.
        what: String,
        /// What happened to its rows.
        report: Box<LoadReport>,
        /// The file that names them.
        rows: Option<PathBuf>,
    },
    /// Log-probs that should be in the cache are not.
    #[error("cache {}: the log-probs of {policy} lack an answer of {id}", dir.display())]
    CacheMiss {
        /// The cache.
        dir: PathBuf,
        /// The policy asked for.
        policy: String,
        /// The row.
        id: String,
    },
    /// The objective cannot be trained by this engine.
    #[error("objective `{name}`: {reason}")]
    Objective {
        /// Its name.
        name: String,
        /// What it needs that a run does not give.
        reason: String,
    },
    /// A round's policy does not reach what it must.
    #[error("{policy} misses its gate: {missed}")]
    GateMissed {
        /// The policy.
        policy: String,
        /// The conditions that do not hold, with what was found.
        missed: String,
    },
    /// The user asked to stop.
    #[error("interrupted; what was done so far is in {}", out.display())]
    Interrupted {
        /// The run directory.
        out: PathBuf,
    },
    /// Another process runs in the directory.
    #[error("{}: another spo is running here ({holder})", out.display())]
    Locked {
        /// The run directory.
        out: PathBuf,
        /// Which process, as far as known.
        holder: String,
    },
    /// There is nothing to go on from.
    #[error("{}: no run has begun here: manifest.json is missing", out.display())]
    NoRun {
        /// The directory.
        out: PathBuf,
    },
    /// A run cannot go on as it began.
    #[error("{}: the run cannot go on as it began:{}", out.display(), listed(changes))]
    Changed {
        /// The run directory.
        out: PathBuf,
        /// Each kind of change, as `--allow` takes it, and what has changed, in words.
        changes: Vec<(&'static str, String)>,
    },
    /// The disk has no room for what is to be written.
    #[error("{}: no room on the disk: {} are to be written, {} are free", path.display(), bytes(*needed), bytes(*free))]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// Bytes to be written.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Whether the run has begun, and can go on later.
        begun: bool,
    },
    /// The device has less memory than the work takes.
    #[error("the device's memory is not enough: {reason}")]
    OutOfMemory {
        /// What was reported.
        reason: String,
        /// The run directory.
        out: PathBuf,
    },
    /// The computation itself broke down, as when a GPU fails.
    #[error("the computation failed: {reason}")]
    Failed {
        /// What was reported.
        reason: String,
        /// The run directory.
        out: PathBuf,
    },
}

fn listed(changes: &[(&'static str, String)]) -> String {
    changes.iter().map(|(change, what)| format!("\n  {change}: {what}")).collect()
}

fn go_on(out: &Path) -> String {
    format!("`spo train --resume {}` goes on", out.display())
}

impl TrainError {
    /// The error of a sink from outside of this crate.
    pub fn sink(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Sink(error.into())
    }

    /// The error for rows that cannot steer.
    pub(crate) fn steering(reason: String) -> Self {
        Self::Steering { reason }
    }

    /// The error for a set that has no pairs.
    pub fn no_pairs(what: impl Into<String>) -> Self {
        Self::NoPairs { what: what.into(), report: Box::default(), rows: None }
    }

    /// The error for a set without pairs, with the reasons for which its rows were dropped.
    pub fn nothing_left(what: impl Into<String>, report: &LoadReport) -> Self {
        let (what, dropped) = (what.into(), report.dropped().join("; "));
        let what = if dropped.is_empty() { what } else { format!("{what} ({dropped})") };
        Self::NoPairs { what, report: Box::new(report.clone()), rows: None }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// Whether some file could not be written because the disk, or a limit of its size, is full.
    fn is_full_disk(&self) -> bool {
        if let Self::NoRoom { begun, .. } = self {
            return *begun;
        }
        let mut causes = std::iter::successors(Some(self as &dyn std::error::Error), |cause| cause.source());
        causes.any(|cause| {
            let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            matches!(kind, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::FileTooLarge))
        })
    }

    /// What a user can do about it.
    pub fn hint(&self) -> Option<String> {
        if self.is_full_disk() {
            return Some(
                "free some space; `spo train --resume` goes on from the last checkpoint, which is intact".into(),
            );
        }
        match self {
            Self::Config(error) => error.hint(),
            Self::Steering { .. } => Some(
                "without `column` in [steering] every dimension of the rows is a user, of whom two or more are needed"
                    .into(),
            ),
            Self::Data(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Core(error) => error.hint(),
            Self::Eval(error) => error.hint(),
            Self::Score(error) => error.hint(),
            Self::Hub(error) => error.hint(),
            Self::Team(error) => error.hint(),
            Self::Command { log, .. } => {
                let run = log.parent().unwrap_or(log);
                let said = format!("its standard error is in {}", log.display());
                Some(format!("{said}; {} with this policy, and trains nothing twice", go_on(run)))
            }
            Self::NoOnlinePairs { .. } => {
                Some("more samples, longer answers, a smaller min-gap, or a scorer that tells answers apart".into())
            }
            Self::OutExists { path } if path.join("manifest.json").exists() => {
                Some(format!("{} with the run there; `out` or --out names another directory", go_on(path)))
            }
            Self::OutExists { .. } => Some("name another directory with `out` or --out, or remove this one".into()),
            Self::Damaged { path, .. } if path.ends_with("manifest.json") => {
                Some("if run file, data and model are the same, name the run file and add --allow manifest".into())
            }
            Self::Damaged { path, .. } if path.ends_with("plan.json") => {
                let run = path.parent().unwrap_or(path).display();
                Some(format!("`spo train --resume {run}` writes it anew, also where the run is over"))
            }
            Self::Damaged { path, .. } if path.to_string_lossy().ends_with("@best") => {
                Some("no other copy of it is kept".into())
            }
            Self::Damaged { .. } => Some("remove the file; what it held is computed again".into()),
            Self::Interrupted { out } => Some(go_on(out)),
            Self::OutOfMemory { out, .. } => Some(format!(
                "lower tokens-per-micro-batch, set `recompute = \"blocks\"`, train an adapter ([lora]) with quantised-base = \"4-bit\", \
                 or give the device to this program alone; `spo plan` shows what each takes, and `spo train --resume {} \
                 --allow run-file` goes on from the last checkpoint",
                out.display()
            )),
            Self::Failed { out, .. } => Some(format!("{} from the last checkpoint", go_on(out))),
            Self::NoRoom { .. } => Some(
                "free some space, name another directory with --out, keep fewer checkpoints with `[checkpoints] keep-last`, \
                 or try nevertheless with --allow disk"
                    .into(),
            ),
            Self::Locked { .. } => Some("wait for it, stop it, or name another directory".into()),
            Self::NoRun { .. } => Some("`spo train RUN.toml` begins one".into()),
            Self::Changed { out, changes } => {
                let mut kinds: Vec<&str> = vec![];
                for (kind, _) in changes {
                    if !kinds.contains(kind) {
                        kinds.push(kind);
                    }
                }
                let flags: Vec<String> = kinds.iter().map(|kind| format!("--allow {kind}")).collect();
                let go_on = format!("`spo train --resume {} {}`", out.display(), flags.join(" "));
                Some(format!("undo that, or go on nevertheless: {go_on}"))
            }
            Self::NotFinite { .. } => {
                Some("lower learning-rate, set max-grad-norm, or look at the rows in that file".into())
            }
            Self::StepZero { .. } => Some(
                "the reference's cached log-probs do not belong to this policy: remove the cache directory of the run"
                    .into(),
            ),
            Self::GateMissed { .. } => Some(
                "the policy and the report are in the run directory; `on-miss = \"roll-back\"` goes on with the round's best policy"
                    .into(),
            ),
            Self::NoPairs { rows: Some(rows), .. } => Some(format!("{} names the rows that were dropped", rows.display())),
            Self::NoPairs { what, report, .. } if report.dropped().is_empty() && what.starts_with("held-out") => Some(
                "raise holdout, or give an entry of [[data]] the key split = \"test\"; with holdout = 0 nothing is evaluated"
                    .into(),
            ),
            Self::NoPairs { .. } => Some("`spo data check --rows FILE` shows why rows were dropped, and names them".into()),
            Self::CacheMiss { .. } => Some("remove the cache directory of the run, so that it is filled again".into()),
            _ => None,
        }
    }
}
