//! How a command ended that did not fail.

/// What the exit code tells.
pub(crate) enum Outcome {
    Done,
    GateMissed,
}
