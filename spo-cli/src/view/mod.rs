//! What a person sees of a run: only events are read.

mod lines;
mod plan;
mod progress;
mod words;

use std::io::{IsTerminal, stderr};

use spo_train::Sink;

pub(crate) use plan::plan_text;

/// A progress bar on a terminal, plain lines elsewhere; both on the standard error stream.
pub(crate) fn progress() -> Box<dyn Sink> {
    if stderr().is_terminal() { Box::new(progress::Progress::default()) } else { Box::new(lines::Lines) }
}
