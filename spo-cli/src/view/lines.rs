//! Plain lines, for logs and pipes.

use spo_train::{Event, Sink, TrainError};

use super::board::Board;
use super::words;
use crate::output::note;

/// Lines per phase of optimiser steps.
const PER_PHASE: u64 = 10;
/// Rows per line about reading, and rows that are read at a time.
const READ_ROWS: usize = 102_400;
const READ_CHUNK: usize = 1024;
/// Seconds without a line after which long work says how far it is.
const SILENT: f64 = 60.0;

/// Writes a line per event, one for every tenth of a phase, and one a minute while much is scored or answered.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    board: Board,
    /// When the last line was written.
    told: f64,
}

impl Sink for Lines {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        self.board.add(seconds, event);
        let left = match (event, self.board.seconds_left()) {
            (Event::Step(_), Some(left)) => format!(", {} left", words::duration(left)),
            _ => String::new(),
        };
        self.lines(seconds, event).iter().for_each(|line| note(format_args!("{line}{left}")));
        Ok(())
    }

    fn earlier(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        self.board.add(seconds, event);
        Ok(())
    }
}

impl Lines {
    /// What is written about an event.
    fn lines(&mut self, seconds: f64, event: &Event) -> Vec<String> {
        let lines = match how_far(event) {
            Some(_) if seconds - self.told < SILENT => vec![],
            Some(line) => vec![format!("{} {line}", words::clock(seconds))],
            // The command itself ends with that.
            None if matches!(event, Event::RunStopped { .. }) => vec![],
            None => plain_lines(seconds, event),
        };
        if !lines.is_empty() {
            self.told = seconds;
        }
        lines
    }
}

/// How far work is that has no steps.
fn how_far(event: &Event) -> Option<String> {
    Some(match event {
        Event::Scoring { policy, done, total } => format!("scoring {policy}: {done} of {total} answers"),
        Event::Answering { policy, done, total } => format!("answers of {policy}: {done} of {total}"),
        Event::Judging { policy, done, total } => format!("judging {policy}: {done} of {total}"),
        _ => return None,
    })
}

/// The lines of an event, if it is one that is shown.
pub(crate) fn plain_lines(seconds: f64, event: &Event) -> Vec<String> {
    let lines = match event {
        Event::Reading { split, rows } if many(*rows) => vec![words::reading(split, *rows)],
        // A line when all is there.
        Event::Downloading { name, done, total } if done == total && *total > 0 => {
            vec![format!("{name} is there, {}", words::downloading(*done, *total))]
        }
        Event::Step(figures) if !shown(figures.step, figures.steps) => vec![],
        Event::Step(figures) => vec![words::step(figures)],
        event => words::lines(event),
    };
    lines.into_iter().map(|line| format!("{} {line}", words::clock(seconds))).collect()
}

/// Data so large that reading them takes a while: a line for about every so many rows.
fn many(rows: usize) -> bool {
    rows >= READ_ROWS && rows % READ_ROWS < READ_CHUNK
}

/// The first step, the last one, and those that complete a tenth.
fn shown(step: u64, steps: u64) -> bool {
    let tenth = |step: u64| step * PER_PHASE / steps.max(1);
    step == 1 || step == steps || tenth(step) != tenth(step - 1)
}

#[cfg(test)]
mod tests {
    use super::{Event, Lines, shown};

    #[test]
    fn long_scoring_is_told_once_a_minute() {
        let mut lines = Lines::default();
        let scoring = |done| Event::Scoring { policy: "start".into(), done, total: 900 };
        let told = (0..=300).filter_map(|second| lines.lines(f64::from(second), &scoring(second as usize)).pop());
        let told: Vec<String> = told.collect();
        assert_eq!(told.len(), 5);
        assert_eq!(told[0], "[ 1:00] scoring start: 60 of 900 answers");
    }

    #[test]
    fn a_phase_has_about_ten_lines() {
        for (steps, expected) in [(1, 1), (3, 3), (10, 10), (300, 11), (999, 11)] {
            assert_eq!((1..=steps).filter(|step| shown(*step, steps)).count(), expected, "{steps} steps");
        }
    }
}
