//! What can go wrong between ranks.

/// Errors of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TeamError {
    /// Several processes were started for one run, and this build cannot connect them.
    #[error("{found}, but {reason}")]
    NotConnected {
        /// What a launcher has set, and to what.
        found: String,
        /// Why they cannot become one run.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// What the launchers say does not fit together.
    #[error("{left}, but {right}")]
    Contradiction {
        /// One of them.
        left: String,
        /// The other.
        right: String,
        /// What to do.
        hint: String,
    },
    /// Ranks that do not do the same.
    #[error("the processes are out of step: rank {rank} is at {theirs}, rank {own_rank} at {own}")]
    OutOfStep {
        /// The other rank.
        rank: usize,
        /// Where it is.
        theirs: String,
        /// This rank.
        own_rank: usize,
        /// Where it is.
        own: String,
    },
    /// Another rank has failed.
    #[error("rank {rank}: {text}")]
    Elsewhere {
        /// Which.
        rank: usize,
        /// Its error.
        text: String,
        /// The exit code that goes with it.
        code: u8,
    },
    /// Ranks that do not answer.
    #[error("no answer from {} in {seconds} seconds ({at})", named(ranks))]
    Silent {
        /// Which, as far as known.
        ranks: Vec<usize>,
        /// How long was waited.
        seconds: u64,
        /// The exchange.
        at: String,
    },
    /// The team is at its end: a rank has failed before.
    #[error("the processes do not work together any more: one has failed")]
    Over,
    /// The library underneath.
    #[error("{call}: {text}")]
    Library {
        /// What was called.
        call: &'static str,
        /// What it said.
        text: String,
    },
}

fn named(ranks: &[usize]) -> String {
    match ranks {
        [] => "the other processes".into(),
        [rank] => format!("rank {rank}"),
        ranks => format!("ranks {}", ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

impl TeamError {
    /// What a user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotConnected { hint, .. } | Self::Contradiction { hint, .. } => Some(hint.clone()),
            Self::OutOfStep { .. } => Some("start the same program with the same arguments on every machine".into()),
            Self::Silent { .. } => Some(
                "a process hangs, or the network: `spo train --resume` goes on from the last checkpoint; `[parallel] timeout` \
                 is how long is waited"
                    .into(),
            ),
            _ => None,
        }
    }
}
