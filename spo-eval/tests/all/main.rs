//! Reports and verdicts. One program, so that burn is linked once.
#![allow(clippy::unwrap_used)]

#[path = "../example_run/mod.rs"]
mod example_run;

mod invariants;
mod report;
mod verdict;
