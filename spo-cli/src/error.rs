//! What ends a command early.

use std::path::{Path, PathBuf};

use spo_core::CoreError;
use spo_data::DataError;
use spo_eval::EvalError;
use spo_hub::HubError;
use spo_model::ModelError;
use spo_score::ScoreError;
use spo_team::TeamError;
use spo_train::TrainError;
use spo_train::config::ConfigError;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CliError {
    /// The run, or the run file.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The objective.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The evaluation.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The Hugging Face Hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A scorer.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Standard output could not be written.
    #[error("cannot write the output: {source}")]
    Output {
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that would have been overwritten.
    #[error("{}: the file exists", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file or an argument that does not hold what it should.
    #[error("{at}: found {found}, expected {expected}")]
    Unexpected {
        /// The file with its line, or the argument.
        at: String,
        /// What is there.
        found: String,
        /// What would be right.
        expected: String,
        /// Whether it is an argument of the command line.
        usage: bool,
    },
    /// Rows of numbers that a loss cannot be computed on.
    #[error("{}: {source}", file.display())]
    Rows {
        /// The file.
        file: PathBuf,
        /// What is wrong, with the line.
        source: CoreError,
    },
    /// The prompt leaves no room for an answer.
    #[error("{name} has {found} tokens, but the model's context is {context}")]
    PromptTooLong {
        /// The prompt.
        name: String,
        /// Tokens of the prompt.
        found: usize,
        /// The model's context.
        context: usize,
    },
    /// Ctrl-C cannot be caught.
    #[error("cannot catch Ctrl-C: {reason}")]
    Signal {
        /// The system's reason.
        reason: String,
    },
    /// A directory that is no run.
    #[error("{}: no run is here: it has no events.jsonl", path.display())]
    NoRun {
        /// The directory.
        path: PathBuf,
    },
    /// The full screen cannot be shown.
    #[error("cannot take over the terminal: {source}")]
    Screen {
        /// The system's reason.
        source: std::io::Error,
    },
    /// The page cannot be served.
    #[error("cannot listen on {address}: {reason}")]
    Serve {
        /// Where.
        address: String,
        /// The system's reason.
        reason: String,
    },
    /// A process of this program could not be started or read.
    #[error("cannot measure in a process of its own: {source}")]
    Process {
        /// The system's reason.
        source: std::io::Error,
    },
    /// A measurement in a process of its own failed and said why.
    #[error("a measurement failed")]
    Measurement {
        /// Its exit code.
        code: u8,
    },
    /// What went wrong with one of several processes, of which one has said it.
    #[error("one of the processes failed")]
    Told {
        /// The exit code of all.
        code: u8,
    },
    /// There is nothing to compute.
    #[error("{file}: no row is left{}", reasons(dropped))]
    NoRows {
        /// The data.
        file: String,
        /// Why its rows were dropped, one line for each reason.
        dropped: Vec<String>,
    },
}

fn reasons(dropped: &[String]) -> String {
    if dropped.is_empty() { String::new() } else { format!(": {}", dropped.join("; ")) }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Train(error.into())
    }
}

impl CliError {
    /// `EX_TEMPFAIL`: a process failed that shares a run with others; it can go on.
    pub const FAILED_TOGETHER: u8 = 75;

    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    pub fn argument(name: &str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Unexpected { at: name.into(), found: found.into(), expected: expected.into(), usage: true }
    }

    /// 1 failed, 2 usage or run file, 3 quality gate missed, 75 one of several processes failed, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Measurement { code } | Self::Told { code } => *code,
            Self::Train(TrainError::Team(error)) => team_code(error),
            Self::Train(TrainError::Interrupted { .. }) => 130,
            Self::Score(ScoreError::UnknownKind { .. } | ScoreError::BadSpec { .. }) => 2,
            Self::Train(TrainError::GateMissed { .. }) => 3,
            Self::Train(TrainError::Score(ScoreError::UnknownKind { .. } | ScoreError::BadSpec { .. })) => 2,
            Self::Train(TrainError::Config(_) | TrainError::Changed { .. }) | Self::Unexpected { usage: true, .. } => 2,
            Self::Train(TrainError::Hub(error)) | Self::Hub(error) => hub_code(error),
            Self::Train(TrainError::Model(error)) | Self::Model(error) => model_code(error),
            Self::Train(TrainError::Data(error)) | Self::Data(error) => data_code(error),
            Self::Train(TrainError::Core(error)) | Self::Core(error) | Self::Rows { source: error, .. } => {
                core_code(error)
            }
            _ => 1,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(DataError::IdsOnly) => Some("name a tokenizer, or a model directory that has one".into()),
            Self::Model(ModelError::TooLong { .. }) => {
                Some("--max-length N cuts long rows, prompts first, and says which".into())
            }
            Self::Train(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Core(error) | Self::Rows { source: error, .. } => error.hint(),
            Self::Eval(error) => error.hint(),
            Self::Score(error) => error.hint(),
            Self::Hub(error) => error.hint(),
            Self::Exists { .. } => Some("nothing was written: name another file, or remove this one".into()),
            Self::PromptTooLong { .. } => Some("shorten the prompt".into()),
            Self::NoRun { .. } => {
                Some("name the directory that `spo train` wrote: `out` of the run file, or --out".into())
            }
            Self::Screen { .. } => Some("leave --tui out, or use `spo serve` and a browser".into()),
            Self::Serve { .. } => Some("--port 0 takes a free port".into()),
            _ => None,
        }
    }

    /// The run file's fault, which knows its place.
    pub fn config(&self) -> Option<&ConfigError> {
        match self {
            Self::Train(TrainError::Config(error)) => Some(error),
            _ => None,
        }
    }
}

fn team_code(error: &TeamError) -> u8 {
    match error {
        TeamError::Elsewhere { code, .. } => *code,
        TeamError::NotConnected { .. } | TeamError::Contradiction { .. } => 2,
        _ => CliError::FAILED_TOGETHER,
    }
}

fn model_code(error: &ModelError) -> u8 {
    if matches!(error, ModelError::Device { .. }) { 2 } else { 1 }
}

fn hub_code(error: &HubError) -> u8 {
    use HubError::{BadName, Choice, NotBuilt};
    if matches!(error, BadName { .. } | Choice { .. } | NotBuilt { .. }) { 2 } else { 1 }
}

fn data_code(error: &DataError) -> u8 {
    use DataError::{BadSetting, UnknownFormat, UnknownSchema};
    if matches!(error, BadSetting { .. } | UnknownFormat { .. } | UnknownSchema { .. }) { 2 } else { 1 }
}

fn core_code(error: &CoreError) -> u8 {
    use CoreError::{InvalidOption, UnknownObjective, UnknownOption, WrongShape};
    let usage =
        matches!(error, InvalidOption { .. } | UnknownObjective { .. } | UnknownOption { .. } | WrongShape { .. });
    if usage { 2 } else { 1 }
}
