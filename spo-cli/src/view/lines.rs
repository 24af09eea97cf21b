//! Plain lines, for logs and pipes.

use spo_train::{Event, Sink, TrainError};

use super::words;
use crate::output::note;

/// Lines per phase of optimiser steps.
const PER_PHASE: u64 = 10;

/// Writes a line per event, and one for every tenth of a phase.
#[derive(Debug)]
pub(crate) struct Lines;

impl Sink for Lines {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        let lines = match event {
            Event::Window(window) if !shown(window.step, window.steps) => vec![],
            Event::Window(window) => vec![words::window(window)],
            event => words::lines(event),
        };
        for line in lines {
            note(format_args!("{} {line}", words::clock(seconds)));
        }
        Ok(())
    }
}

/// The first step, the last one, and those that complete a tenth.
fn shown(step: u64, steps: u64) -> bool {
    let tenth = |step: u64| step * PER_PHASE / steps.max(1);
    step == 1 || step == steps || tenth(step) != tenth(step - 1)
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_phase_has_about_ten_lines() {
        for (steps, expected) in [(1, 1), (3, 3), (10, 10), (300, 11), (999, 11)] {
            assert_eq!((1..=steps).filter(|step| shown(*step, steps)).count(), expected, "{steps} steps");
        }
    }
}
