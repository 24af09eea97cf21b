//! What can go wrong between this machine and the Hub.

use std::path::{Path, PathBuf};

/// For those who meant a directory that is not there, as `runs/a`.
const PATHS: &str = "A path was meant? Nothing is there; with ./ before it the error says so";

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name that cannot be one.
    #[error("{name}: {reason}")]
    BadName {
        /// As it was written.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This program was built without the Hub.
    #[error("{name} is a name on the Hugging Face Hub, and this spo was built without the feature `hub`")]
    NotBuilt {
        /// As it was written.
        name: String,
    },
    /// The cache lacks it, and nothing may be downloaded.
    #[error("{name}: not in the cache {}, and HF_HUB_OFFLINE is set", cache.display())]
    Offline {
        /// The name.
        name: String,
        /// The cache's directory.
        cache: PathBuf,
    },
    /// No such repository, or no right to know of it.
    #[error("{name}: the Hub has no such {kind}, or it is private ({status} from {endpoint})")]
    NoRepository {
        /// The name.
        name: String,
        /// `model` or `data set`.
        kind: &'static str,
        /// HTTP status.
        status: u16,
        /// The Hub's address.
        endpoint: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{name}: no revision `{revision}`")]
    NoRevision {
        /// The name.
        name: String,
        /// The revision.
        revision: String,
    },
    /// The repository asks for an agreement first.
    #[error("{name}: the repository is gated{}", said(message))]
    Gated {
        /// The name.
        name: String,
        /// Its page.
        page: String,
        /// What the Hub says.
        message: String,
    },
    /// The token is refused.
    #[error("{name}: the Hub refuses the token ({status}){}", said(message))]
    Token {
        /// The name.
        name: String,
        /// HTTP status.
        status: u16,
        /// What the Hub says.
        message: String,
    },
    /// Too many requests.
    #[error("{url}: too many requests; the Hub asks to wait {seconds} seconds")]
    Limited {
        /// The request.
        url: String,
        /// How long.
        seconds: u64,
    },
    /// Another status.
    #[error("{url}: HTTP status {status}{}", said(message))]
    Status {
        /// The request.
        url: String,
        /// HTTP status.
        status: u16,
        /// What the server says.
        message: String,
    },
    /// No answer.
    #[error("{url}: {reason}")]
    Unreachable {
        /// The request.
        url: String,
        /// Why.
        reason: String,
    },
    /// An answer that is none.
    #[error("{url}: found {found}, expected {expected}")]
    Malformed {
        /// The request.
        url: String,
        /// What came.
        found: String,
        /// What should have come.
        expected: &'static str,
    },
    /// A downloaded file is not what the Hub says it is.
    #[error("{file} of {name}: the {what} is {found}, expected {expected}")]
    Corrupt {
        /// The name.
        name: String,
        /// The file.
        file: String,
        /// `length` or `hash`.
        what: &'static str,
        /// What came.
        found: String,
        /// What the Hub has.
        expected: String,
    },
    /// The repository has nothing that can be used.
    #[error("{name}: {found}, expected {expected}")]
    Nothing {
        /// The name.
        name: String,
        /// What the repository has.
        found: String,
        /// What is needed.
        expected: &'static str,
    },
    /// A configuration or split has to be chosen, or the chosen one is not there.
    #[error("{name}: {}", choice(key, found.as_deref(), known))]
    Choice {
        /// The name.
        name: String,
        /// The key that chooses.
        key: &'static str,
        /// What was chosen.
        found: Option<String>,
        /// What there is.
        known: Vec<String>,
    },
    /// A file of the cache could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn choice(key: &str, found: Option<&str>, known: &[String]) -> String {
    let known = known.join(", ");
    match found {
        Some(found) => format!("found {key} = \"{found}\", expected one of {known}"),
        None => format!("{key} is not set and there are several: {known}"),
    }
}

impl HubError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// Whether another attempt may do better.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Status { status: 500..=599, .. })
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::BadName { .. } => {
                "write org/name or hf://org/name@revision; hf://datasets/org/name for a data set; a file of it behind \
                 another /"
                    .into()
            }
            Self::NotBuilt { .. } => "build with the feature `hub`, which is a default one; or download it by other \
                                      means and name the directory"
                .into(),
            Self::Offline { name, .. } => {
                format!(
                    "unset HF_HUB_OFFLINE and run `spo fetch {name}` once while there is a network. {PATHS}"
                )
            }
            Self::NoRepository { .. } => format!(
                "look at the spelling; of a private repository the Hub says only to those who may see it that it is there: \
                 set HF_TOKEN. {PATHS}"
            ),
            Self::NoRevision { .. } => "name a branch, a tag or a whole commit hash behind @".into(),
            Self::Gated { page, .. } => {
                format!("agree to its terms at {page}, then set HF_TOKEN to a token of that account")
            }
            Self::Token { .. } => {
                "set HF_TOKEN to a valid token (its rights must cover this repository; writing needs a write token), or \
                 unset it for public ones"
                    .into()
            }
            Self::Limited { .. } => "try again later; with HF_TOKEN set the limits are higher".into(),
            Self::Unreachable { .. } | Self::Status { .. } => format!(
                "what was downloaded is kept: the same command goes on from there. HF_HUB_OFFLINE=1 uses the cache alone; \
                 HF_ENDPOINT names another server. {PATHS}"
            ),
            Self::Corrupt { .. } => "the file was removed; try again, and if it happens twice look at the server that \
                                     HF_ENDPOINT names, or at a proxy"
                .into(),
            Self::Nothing { .. } => {
                "name another repository, or a file of it: hf://org/name/FILE.gguf".into()
            }
            Self::Choice { .. } => "set it in this [[data]] table".into(),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                "the disk is full: make room, or name another place with HF_HOME; what was downloaded is kept".into()
            }
            Self::Malformed { .. } | Self::Io { .. } => return None,
        })
    }
}
