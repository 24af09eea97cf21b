//! A bar for what runs, with finished things above it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use spo_train::{Event, Sink, TrainError};

use super::board::Board;
use super::words;
use crate::output::note;

/// Draws on the standard error stream.
#[derive(Default)]
pub(crate) struct Progress {
    board: Board,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// The bar of what runs now; a new one if another thing begins.
    fn bar(&mut self, name: &str, length: u64) -> &ProgressBar {
        let same = self.bar.as_ref().is_some_and(|bar| bar.prefix() == name && bar.length() == Some(length));
        if !same {
            self.clear();
        }
        self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len}\n  {wide_msg}")
                .expect("the template is well-formed");
            let bar = ProgressBar::new(length).with_style(style).with_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        })
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Sink for Progress {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        self.board.add(seconds, event);
        match event {
            Event::Step(figures) => {
                let message = words::progress(figures, self.board.seconds_left());
                let bar = self.bar(&figures.phase, figures.steps);
                bar.set_message(message);
                bar.set_position(figures.step);
            }
            Event::Reading { split, rows } => {
                let message = words::reading(split, *rows);
                self.bar("reading", 0).set_message(message);
            }
            Event::Downloading { name, done, total } => {
                let message = words::downloading(*done, *total);
                let bar = self.bar(name, *total);
                bar.set_message(message);
                bar.set_position(*done);
            }
            Event::Scoring { policy, done, total } => {
                self.bar(&format!("scoring {policy}"), *total as u64).set_position(*done as u64);
            }
            Event::Answering { policy, done, total } => {
                self.bar(&format!("answers of {policy}"), *total as u64).set_position(*done as u64);
            }
            Event::Judging { policy, done, total } => {
                self.bar(&format!("judging {policy}"), *total as u64).set_position(*done as u64);
            }
            // The command itself ends with that.
            Event::RunStopped { .. } => self.clear(),
            event => {
                for line in words::lines(event) {
                    self.clear();
                    note(format_args!("{} {line}", words::clock(seconds)));
                }
            }
        }
        Ok(())
    }

    fn earlier(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        self.board.add(seconds, event);
        Ok(())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
