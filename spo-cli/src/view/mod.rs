//! What a person sees of a run: only events are read.

mod attached;
mod board;
mod columns;
mod lines;
mod memory;
mod plan;
mod progress;
mod screen;
#[cfg(unix)]
mod terminal;
mod words;

use std::io::{self, IsTerminal, stderr};
use std::sync::Arc;

use spo_train::Sink;

use crate::error::CliError;
use crate::interrupt::Interrupt;
pub(crate) use attached::Attached;
pub(crate) use columns::columns;
pub(crate) use lines::plain_lines;
pub(crate) use plan::{forecast_text, plan_text, stages_text};

/// A progress bar on a terminal, plain lines elsewhere; both on the standard error stream.
pub(crate) fn progress() -> Box<dyn Sink> {
    if stderr().is_terminal() { Box::new(progress::Progress::default()) } else { Box::new(lines::Lines::default()) }
}

/// The full screen of a run that trains in this process; `interrupt` hears when the user wants to stop.
#[cfg(unix)]
pub(crate) fn own_screen(interrupt: &Arc<Interrupt>) -> Result<Box<dyn Sink>, CliError> {
    Ok(Box::new(terminal::FullScreen::start(interrupt.clone()).map_err(no_screen)?))
}

/// The full screen of a run that trains elsewhere.
#[cfg(unix)]
pub(crate) fn full_screen(mut attached: Attached) -> Result<(), CliError> {
    let next = || {
        attached.update()?;
        Ok((attached.board.clone(), attached.state()))
    };
    terminal::watch(next).map_err(no_screen)?
}

#[cfg(not(unix))]
pub(crate) fn own_screen(_: &Arc<Interrupt>) -> Result<Box<dyn Sink>, CliError> {
    Err(no_screen(io::ErrorKind::Unsupported.into()))
}

#[cfg(not(unix))]
pub(crate) fn full_screen(_: Attached) -> Result<(), CliError> {
    Err(no_screen(io::ErrorKind::Unsupported.into()))
}

fn no_screen(source: io::Error) -> CliError {
    CliError::Screen { source }
}
